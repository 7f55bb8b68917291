"""The catalogue's page holds every view with its state, and shows whatever people wrote as text."""

from datetime import UTC, datetime, timedelta

from ml_platform.features.catalogue.describe import FeatureState, ViewState
from ml_platform.features.catalogue.page import render_page, write_page

STATE = ViewState(
    name="shop_load",
    description="Orders <b>open</b> & due.",
    owner="shop@example.com",
    entity=("shop",),
    ttl=timedelta(days=2),
    tags={"domain": "orders"},
    hash="0123456789abcdef",
    models=("order_late",),
    rows=1234567,
    newest=datetime(2024, 5, 1, 12, tzinfo=UTC),
    newest_online=None,
    features=(
        FeatureState(
            name="load", type="number", unit="orders", description="<script>x</script>", null_share=0.25, last=1234.5678
        ),
    ),
    problems=("not published: materialise online/shop_load",),
)


def test_a_view_is_shown_with_its_state():
    page = render_page([STATE], datetime(2024, 5, 2, tzinfo=UTC))
    for shown in (
        "domain: orders",
        "1 as of 2024-05-02 00:00 UTC",
        "0123456789ab<",
        "order_late",
        "1,234,567",
        "2024-05-01 12:00 UTC",
        "<dt>newest online</dt><dd>none</dd>",
        "25.0%",
        "1,235",
        "orders",
        "not published: materialise online/shop_load",
    ):
        assert shown in page
    assert "2 days" in page


def test_what_people_wrote_stays_text_and_nothing_is_fetched():
    page = render_page([STATE])
    assert "Orders &lt;b&gt;open&lt;/b&gt; &amp; due." in page
    assert "<script" not in page
    assert "http" not in page


def test_a_page_is_replaced_whole(tmp_path):
    path = tmp_path / "reports" / "features.html"
    write_page([], path)
    assert "There are no feature views yet." in path.read_text()
    assert write_page([STATE], path) == path
    assert "shop_load" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["features.html"]
