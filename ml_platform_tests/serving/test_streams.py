"""`GET /streams` and the panel of the console: what workers report, and only of models that the key covers."""

from datetime import UTC, datetime, timedelta

from starlette.testclient import TestClient

from ml_platform.serving.app import create_app
from ml_platform.streams.status import PartitionStatus, StreamStatus, write_status
from ml_platform_tests.serving.releases import MODEL, fill_online_store, publish


def put(settings, model: str, **changes) -> None:
    now = datetime.now(UTC)
    status = StreamStatus(
        model=model, part="scorer", worker=1, workers=2, state="running", reason=None, pid=7, host="a", started_at=now,
        updated_at=now, source="stream FLIGHTS", target="topic answers", answered=1200, dead_letters=3,
        refused={"late": 2, "broken": 1}, rows_per_second=812.5, seconds_p50=0.0042, seconds_p99=0.019,
        last_commit_at=now, partitions=[PartitionStatus(partition=0, position=9, end=27, waiting=17)],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(status, name, value)
    write_status(settings.streams_dir, status)


def test_workers_are_listed_and_shown_on_the_models_page(settings):
    fill_online_store(settings)
    publish(settings, 3)
    put(settings, MODEL)
    put(settings, MODEL, worker=2, updated_at=datetime.now(UTC) - timedelta(minutes=5), refused={}, dead_letters=0)
    put(settings, MODEL, worker=1, part="sink", state="waiting", reason="no broker at <b>here</b>")
    with TestClient(create_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as client:
        listed = client.get("/streams").json()["workers"]
        page = client.get(f"/models/{MODEL}/console").text
    by_name = {(one["part"], one["worker"]): one for one in listed}
    first = by_name["scorer", 1]
    assert (first["state"], first["waiting"], first["refused"]) == ("running", 17, {"late": 2, "broken": 1})
    assert by_name["scorer", 2]["state"] == "gone"
    assert by_name["sink", 1]["reason"] == "no broker at <b>here</b>"
    panel = page.partition('id="stream"')[2].partition("</section>")[0]
    for text in ("stream FLIGHTS → topic answers", "4.2 ms", "19 ms", "1,200", "1 broken, 2 late", "gone"):
        assert text in panel, text
    assert "no broker at &lt;b&gt;here" in panel


def test_a_server_without_streams_lists_none(settings):
    with TestClient(create_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as client:
        assert client.get("/streams").json() == {"workers": []}
