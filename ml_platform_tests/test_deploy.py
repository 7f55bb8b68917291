"""The files in `deploy/` against the code: ports, probes, variables, options, metric names, schemas."""

import json
import pkgutil
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from ml_platform.serving.__main__ import _options
from ml_platform.serving.access.authorization import PROBES
from ml_platform.serving.ray_app import Options, default_config
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import NAMESPACE, Metrics
from ml_platform.settings import Settings
from ml_platform_tests.installed_engine import build_wheel
from ml_platform_tests.needs import program
from ml_platform_tests.paths import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")
KUBERNETES = "1.33"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def manifest(kind: str) -> dict[str, Any]:
    [found] = [document for path in MANIFESTS for document in documents(path) if document["kind"] == kind]
    return found


def container() -> dict[str, Any]:
    [found] = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def known_metrics() -> dict[str, set[str]]:
    """Every series of the exposition, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            name = metric._name if metric._type != "counter" else f"{metric._name}_total"
            suffixes = ("_bucket", "_sum", "_count") if metric._type == "histogram" else ("",)
            found |= {name + suffix: labels | ({"le"} if suffix == "_bucket" else set()) for suffix in suffixes}
    return found


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "serving.json").read_text(encoding="utf-8"))


def queries() -> Iterator[str]:
    """Every query of the dashboard and the alerts, with Grafana's variables filled in."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
    for group in read(DEPLOY / "prometheus" / "alerts.yml")["groups"]:
        for rule in group["rules"] if group["name"] == "ml-platform-serving" else ():
            yield rule["expr"]


@pytest.mark.parametrize("query", queries())
def test_every_query_is_valid_and_names_metrics_and_labels_that_exist(query: str) -> None:
    promql_parser.parse(query)
    known = known_metrics()
    names = set(re.findall(rf"\b{NAMESPACE}_\w+", query))
    assert names <= set(known)
    assert names or query.startswith("up{")
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query):
        labels |= {label.strip() for label in grouped.split(",")}
    assert labels <= set.union({"job"} if query.startswith("up{") else set(), *(known[name] for name in names))


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    shown = set(re.findall(rf"{NAMESPACE}_\w+", " ".join(queries())))
    roots = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    wanted = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known_metrics()}
    never = (
        "swaps_total",
        "release_refusals_total",
        "endpoint_revision",
        "turned_away_total",
    )  # the last is deprecated
    not_shown = {f"{NAMESPACE}_{name}" for name in never}
    assert wanted - roots == not_shown


def test_the_dashboard_has_no_overlapping_panels_and_asks_for_its_data_source() -> None:
    found = dashboard()
    seen: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & seen, panel["title"]
        assert max(x for x, _ in cells) < 24
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        seen |= cells
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])


def test_the_autoscaler_by_requests_under_way_differs_in_its_metric_which_the_adapter_gives() -> None:
    folder = DEPLOY / "kubernetes_in_flight"
    overlay = read(folder / "kustomization.yaml")
    assert overlay["resources"] == ["../kubernetes"]
    [change] = overlay["patches"]
    patch = yaml.safe_load(change["patch"])
    kubernetes_validate.validate(patch, KUBERNETES, strict=True)
    plain = manifest("HorizontalPodAutoscaler")
    for key in ("apiVersion", "kind", "metadata"):  # by which a patch finds what it changes
        assert patch[key] == plain[key]
    assert patch["spec"]["scaleTargetRef"] == plain["spec"]["scaleTargetRef"]
    [pods] = [metric["pods"] for metric in patch["spec"]["metrics"] if metric["type"] == "Pods"]
    [rule] = read(DEPLOY / "prometheus" / "adapter.yaml")["rules"]["custom"]
    assert rule["name"]["as"] == pods["metric"]["name"]
    series = rule["seriesQuery"].partition("{")[0]
    assert series in known_metrics()
    assert re.fullmatch(rule["name"]["matches"], series)
    query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
    promql_parser.parse(query.replace("<<.LabelMatchers>>", 'pod=~"a|b"'))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert path.name in read(DEPLOY / "kubernetes" / "kustomization.yaml")["resources"]


def test_probes_ports_and_options_are_the_servers() -> None:
    found = container()
    [port] = found["ports"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert found[probe]["httpGet"]["path"] in PROBES
        assert found[probe]["httpGet"]["port"] == port["name"]
    [service] = manifest("Service")["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert entry
    command = json.loads(entry[1])
    assert command[:3] == ["python", "-m", "ml_platform.serving"]
    options = _options([*command[3:], *found["args"]])
    assert (options.port, options.host, options.workers) == (port["containerPort"], "0.0.0.0", 1)
    assert read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]["metrics_path"] == "/metrics"


def test_variables_and_folders_are_the_servers() -> None:
    prefixes: dict[str, type[BaseModel]] = {"ML_PLATFORM_SERVING_": ServingSettings, "ML_PLATFORM_": Settings}
    variables = [variable["name"] for variable in container()["env"]]
    variables += re.findall(r"^ENV (ML_PLATFORM_\w+)=", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for variable in variables:
        prefix = next(prefix for prefix in prefixes if variable.startswith(prefix))
        assert variable.removeprefix(prefix).lower() in prefixes[prefix].model_fields
    settings = Settings(home=Path("/data"))
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container()["volumeMounts"]}
    assert mounts == {
        str(settings.releases_dir): True,
        str(settings.keys_dir): True,
        str(settings.inference_log_dir): False,
        str(settings.push_log_dir): False,
        str(settings.audit_dir): False,
        str(settings.alerts_dir): False,
        str(settings.in_force_dir): False,
        "/tmp": False,
    }


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    context = container()["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = re.search(r"^USER (\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert int(user[1]) == pod["securityContext"]["runAsUser"]


def test_selectors_agree() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert manifest("Service")["spec"]["selector"].items() <= labels.items()
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == manifest("Deployment")["metadata"]["name"]


def test_the_image_installs_the_extra_of_the_server_and_lists_no_packages_itself(tmp_path: Path) -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"pip install (.*)", text) == ['--prefix /packages --constraint requirements.lock ".[serving]"']
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    context = tmp_path / "context"  # what the image is built from
    context.mkdir()
    for name in (line.removeprefix("!") for line in ignored if line.startswith("!")):
        source = PROJECT_ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, context / name)
    assert (context / "requirements.lock").exists()
    assert (context / "serving").exists()
    with zipfile.ZipFile(build_wheel(tmp_path, context)) as wheel:
        [metadata] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        assert "Provides-Extra: serving" in wheel.read(metadata).decode()


def test_the_configuration_of_ray_serve_names_what_there_is() -> None:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(read(default_config()))
    assert config.http_options.host == "127.0.0.1"  # Ray's own default is all addresses
    [application] = config.applications
    Options.model_validate(application.args)
    [deployment] = application.deployments
    deployed = pkgutil.resolve_name(application.import_path)(Options())
    assert deployed._bound_deployment.name == deployment.name
    assert isinstance(deployment.autoscaling_config, dict)
    assert set(deployment.autoscaling_config) <= set(AutoscalingConfig.model_fields)
    assert not config.http_options.model_extra
    assert not deployment.model_extra


def test_the_network_policy_is_of_the_servers_pods_and_port():
    policy, service = manifest("NetworkPolicy")["spec"], manifest("Service")["spec"]
    assert policy["podSelector"]["matchLabels"] == service["selector"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [service["ports"][0]["targetPort"]]
    assert rule["from"]  # an empty list would let everybody in


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.stem)
def test_systemd_units(unit, tmp_path):
    text = unit.read_text(encoding="utf-8")
    (module,) = re.findall(r"^ExecStart=/srv/ml-platform/\.venv/bin/python -m (\S+)", text, re.MULTILINE)
    path = PROJECT_ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    assert "UMask=0077" in text
    analyze = program("systemd-analyze", package="systemd")
    # The paths and the user of the unit are an installation's; here they are this machine's.
    here = text.replace("/srv/ml-platform/.venv/bin/python", "/bin/true").replace("/srv/ml-platform", str(tmp_path))
    copy = tmp_path / unit.name
    copy.write_text(here.replace("User=ml-platform", "User=root"))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


def test_the_workflow_may_read_only_and_pins_its_actions():
    workflow = read(PROJECT_ROOT / ".github" / "workflows" / "ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)
