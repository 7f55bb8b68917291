"""Board, alerts, unit and manifest of streams: what they name exists."""

import json
import re

import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from ml_platform.stream_scoring.metrics import NAMESPACE, StreamMetrics
from ml_platform_tests.paths import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
BOARD = json.loads((DEPLOY / "grafana" / "streams.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]


def known_metrics() -> dict[str, set[str]]:
    """Names of the series of a stream's worker, with their labels."""
    registry = CollectorRegistry()
    metrics = StreamMetrics(registry)
    names = {}
    for one in vars(metrics).values():
        name, labels = one._name, set(one._labelnames)
        kind = one._type
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[kind]
        for end in ends:
            names[f"{name}{end}"] = labels | ({"le"} if end == "_bucket" else set())
    return names


def queries() -> list[str]:
    """Every query of the board and of the alerts."""
    of_board = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    filled = [query.replace("$__rate_interval", "1m").replace("$model", ".*") for query in of_board]
    return filled + [
        rule["expr"] for group in ALERTS if group["name"] == "ml_platform_streams" for rule in group["rules"]
    ]


@pytest.mark.parametrize("query", queries())
def test_every_query_is_valid_and_names_metrics_and_labels_that_exist(query):
    promql_parser.parse(query)
    known = known_metrics()
    names = set(re.findall(rf"\b{NAMESPACE}_\w+", query))
    assert names
    assert names <= set(known)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
    for grouped in re.findall(r"\bby\s*\(([^)]*)\)", query):
        labels |= {label.strip() for label in grouped.split(",")}
    assert labels <= set.union(*(known[name] for name in names))


def test_every_metric_of_streams_is_on_the_board():
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(rf"{NAMESPACE}_\w+", " ".join(queries()))}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in known_metrics()} == shown


def test_panels_do_not_overlap():
    seen: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & seen, panel["title"]
        assert max(x for x, _ in cells) < 24
        seen |= cells


def test_the_manifest_fits_kubernetes_and_gives_each_pod_a_share():
    document = yaml.safe_load((DEPLOY / "kubernetes_stream" / "stream.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(document, "1.30", strict=True)
    [container] = document["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["STREAM_WORKERS"] == str(document["spec"]["replicas"])
    assert '--worker "$((POD_INDEX + 1))/$STREAM_WORKERS"' in container["command"][-1]
    assert document["spec"]["selector"]["matchLabels"] == document["spec"]["template"]["metadata"]["labels"]


def test_the_unit_does_not_start_again_what_wants_a_person():
    unit = (DEPLOY / "systemd" / "ml-platform-stream@.service").read_text(encoding="utf-8")
    assert "RestartPreventExitStatus=1 3" in unit
    assert "stream run %i" in unit
