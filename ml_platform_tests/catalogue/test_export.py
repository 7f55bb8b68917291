"""The static export: whole, escaped, safe to repeat, and searched without a server."""

import json
import os
import re

import pytest
from playwright.sync_api import expect

from ml_platform.catalogue.document import Column, Entry, View
from ml_platform.catalogue.export import MARK, NotAnExport, export, file_name
from ml_platform.catalogue.pages import Sample
from ml_platform.catalogue.search import search
from ml_platform_tests.catalogue.entries import FLIGHTS, OTHERS, RELIABILITY, catalogue
from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture

NASTY = Entry(
    name="raw.A",
    kind="table",
    description="<script>document.title = 'ran'</script> & \"quotes\"\n" + "very long " * 500,
    owner="</script><b>",
    tags={"x": "</script>"},
    columns=(Column(name="日付 </script>", description="<img src=x onerror=alert(1)>"), Column(name="a" * 300)),
    upstream=("raw.gone",),
)
ODD = (Entry(name="raw.a", kind="table"), Entry(name="stream:x/../../etc", kind="stream"))


def test_names_of_files_differ_wherever_names_do_and_stay_in_their_folder():
    names = [
        "raw.a",
        "raw.A",
        "model:a",
        "model--a",
        "stream:x/../../etc",
        "term:late flight",
        "term:" + "ä" * 300,
        "..",
    ]
    files = [file_name(name) for name in names]
    assert len({name.lower() for name in files}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9@_][a-z0-9._@-]{0,100}\.html", name) for name in files), files


def test_all_links_lead_to_files_and_nothing_is_loaded_from_elsewhere(tmp_path):
    folder = tmp_path / "site"
    assert (
        export(catalogue([FLIGHTS, RELIABILITY, *OTHERS, NASTY, *ODD], "one could not be read"), folder, project="x")
        == 11
    )
    pages = [folder / "index.html", *(folder / "entries").iterdir()]
    assert len(pages) == 12
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#?]+)', text):
            assert ":" not in link, (page, link)
            assert (page.parent / link.replace("%40", "@")).resolve().is_file(), (page, link)
        assert "<script>" not in text
        assert "onerror=alert(1)>" not in text
    assert "one could not be read" in pages[0].read_text(encoding="utf-8")
    assert "(raw.gone)" not in (folder / "entries" / file_name("raw.A")).read_text(encoding="utf-8")


def test_samples_are_in_it_only_when_they_are_asked_for(tmp_path):
    export(catalogue(), tmp_path / "plain", project="x")
    export(
        catalogue(), tmp_path / "rows", project="x", sample=lambda _: Sample(("secret",), (("s3cr3t",),), "One row.")
    )
    assert not any("s3cr3t" in page.read_text() for page in (tmp_path / "plain").rglob("*.html"))
    assert "s3cr3t" in (tmp_path / "rows" / "entries" / "raw.flights.html").read_text()


def test_what_may_not_be_browsed_is_in_no_file(tmp_path):
    export(catalogue(), tmp_path / "site", project="x", may_browse=lambda entry: "flights" not in entry.name)
    for page in (tmp_path / "site").rglob("*"):
        if page.is_file():
            assert "raw.flights" not in page.read_text(encoding="utf-8").replace("raw.flights.carrier", ""), page


def test_an_export_replaces_only_an_export(tmp_path):
    folder = tmp_path / "site"
    export(catalogue(), folder, project="x")
    export(catalogue([RELIABILITY]), folder, project="x")
    assert [path.name for path in (folder / "entries").iterdir()] == ["features.carrier_reliability.html"]
    assert os.listdir(tmp_path) == ["site"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(NotAnExport, match="holds files that no export has written"):
        export(catalogue(), tmp_path / "mine", project="x")
    with pytest.raises(NotAnExport, match="is a file"):
        export(catalogue(), tmp_path / "mine" / "thesis.txt", project="x")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_export_that_fails_leaves_the_one_before(tmp_path):
    folder = tmp_path / "site"
    export(catalogue(), folder, project="x")

    def fails(_: Entry) -> Sample:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        export(catalogue(), folder, project="x", sample=fails)
    assert (folder / MARK).is_file()
    assert os.listdir(tmp_path) == ["site"]


def test_the_script_finds_what_the_server_finds_in_the_same_order(tmp_path, browser):  # noqa: F811
    whole = catalogue([FLIGHTS, RELIABILITY, *OTHERS, NASTY, *ODD])
    export(whole, tmp_path / "site", project="x")
    page = browser.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto((tmp_path / "site" / "index.html").as_uri())
    expect(page.locator("#hits > li")).to_have_count(11)  # without a query: all, as they are in the file
    for query in ("carier dealy", "flights", "airline", "team flights", "日付", "zebra"):
        page.get_by_label("Search").fill(query)
        wanted = [hit.entry.title for hit in search(View(whole), query)]
        expect(page.locator("#hits > li > a")).to_have_text(wanted)
    page.get_by_label("Search").fill("carrier")
    page.get_by_label("Kind").select_option("view")
    expect(page.locator("#hits > li > a")).to_have_text(["features.carrier_reliability"])
    page.locator("#hits > li > a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("features.carrier_reliability")
    assert page.title() != "ran"
    assert troubles == []
    page.close()


def test_the_index_is_json_behind_an_assignment(tmp_path):
    export(catalogue([NASTY]), tmp_path / "site", project="x")
    text = (tmp_path / "site" / "assets" / "index.js").read_text(encoding="utf-8")
    [record] = json.loads(text.removeprefix("window.CATALOGUE = ").rstrip(";\n"))
    assert record["c"][0][0] == "日付 </script>"
