"""An entity that was erased while the server runs: gone from its open log, and no push brings it back."""

from datetime import timedelta

from ml_platform.features.online.open import open_online_store
from ml_platform.governance.erasure.entities import Project
from ml_platform.governance.erasure.forget import Erasure
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.serving.pushing import VIEW, row, set_up, weather_view
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, ROW

PERSON = "person-1"


def test_an_erased_entity_leaves_the_open_log_and_is_not_pushed_again(settings, serve):
    lake, view = Lake(settings.lake_uri), weather_view()
    set_up(settings, lake, view)
    client = serve(settings).client
    sent = {"rows": [row(PERSON, KNOWN_AT + timedelta(minutes=1), 1.0), row("EWR", KNOWN_AT, 2.0)]}
    assert client.post(f"/features/{VIEW}", json=sent).json()["accepted"] == 2
    asked = {"rows": [{**ROW, "origin": PERSON}, ROW]}
    assert client.post(f"/predict/{MODEL}", json=asked).status_code == 200

    erasure = Erasure(settings, "origin", [PERSON], project=Project({}, {}, {VIEW: view}, {}, {}, {}))
    certificate, _ = erasure.run()
    overwritten = [one["lines_overwritten"] for one in certificate.elsewhere if "lines_overwritten" in one]
    assert overwritten == [1, 1]  # left out on their way into the lake, then taken out of the open files
    assert lake.read(f"inference_log/{MODEL}").collect()["inputs"].str.contains("EWR").to_list() == [True]
    logs = [*settings.push_log_dir.rglob("*.jsonl"), *settings.inference_log_dir.rglob("*.jsonl")]
    assert len(logs) == 2  # the server has both open
    assert not any(PERSON.encode() in path.read_bytes() for path in logs)
    assert erasure.search() == []

    assert client.post(f"/features/{VIEW}", json=sent).json()["accepted"] == 1
    assert client.post(f"/features/{VIEW}", json=sent["rows"][0]).json()["accepted"] == 0
    with open_online_store(settings.online_uri) as store:
        rows = store.read([(VIEW, (PERSON,)), (VIEW, ("EWR",))])
    assert [row is None for row in rows] == [True, False]
    assert erasure.search() == []
