"""Names of catalogue objects: what they are read as, and what contains what."""

import pytest

from ml_platform.governance.access.objects import NoObject, check_exists, column_object, parse_object, table_object


@pytest.mark.parametrize(
    ("text", "same", "kind"),
    [
        ("raw", "raw", "schema"),
        ("schema:raw", "raw", "schema"),
        ("schema:platform", "schema:platform", "schema"),
        ("platform", "platform", "platform"),
        ("Raw.Flights", "raw.flights", "table"),
        ("raw/flights", "raw.flights", "table"),
        ("`raw`.`flights`", "raw.flights", "table"),
        ("table:raw.flights", "raw.flights", "table"),
        ("view:carrier", "features.carrier", "table"),
        ('raw.flights."Tail.Number"', 'raw.flights."tail.number"', "column"),
        ('quarantine."raw/flights"', "quarantine.raw/flights", "table"),
        ("quarantine/raw/flights", "quarantine.raw/flights", "table"),
        ("model:Rent", "model:Rent", "model"),
    ],
)
def test_equal_objects_have_equal_texts_which_are_read_back(text: str, same: str, kind: str) -> None:
    read = parse_object(text)
    assert (read.text, read.kind) == (same, kind)
    assert parse_object(read.text) == read


@pytest.mark.parametrize(
    "text",
    ["", ".", "raw.", ".raw", "raw..flights", "a.b.c.d", 'raw."x', "raw. flights", "model:", "model:a b", "colour:red",
     "table:raw", "schema:raw.flights", "raw.fl;ights", "raw.'x'", "../x", "raw.\n"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(NoObject):
        parse_object(text)


def test_containers_go_up_to_the_platform() -> None:
    assert [one.text for one in column_object("raw/flights", "Tail").containers] == ["raw.flights", "raw", "platform"]
    assert [one.text for one in parse_object("endpoint:rent").containers] == ["model:rent", "platform"]
    assert table_object("quarantine/raw/flights").lake_table == "quarantine/raw/flights"


def test_what_does_not_exist_is_told_with_the_nearest_or_with_its_like() -> None:
    known = ["raw", "raw.flights", "model:rent", "tag:pii"]
    check_exists(parse_object("raw.flights"), known)
    check_exists(parse_object("platform"), known)
    with pytest.raises(NoObject, match=r"did you mean model:rent\?"):
        check_exists(parse_object("model:rents"), known)
    with pytest.raises(NoObject, match="there are none of that kind"):
        check_exists(parse_object("namespace:zzzzzzzz"), known)
