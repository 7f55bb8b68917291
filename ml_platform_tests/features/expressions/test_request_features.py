"""Features derived from the request: declared once, computed alike by Polars and for serving."""

from pathlib import Path

import polars as pl
import pytest

from ml_platform.features.expressions.compile import compile_tree, evaluator
from ml_platform.features.expressions.request_features import (
    RequestFeature,
    add_request_features,
    check_request_feature_parity,
    derived_types,
    load_request_features,
)
from ml_platform.spec.inputs import InputField

INPUTS = (InputField(name="departure", type="timestamp"), InputField(name="miles", type="integer"))
IMPORTS = "import polars as pl\nfrom ml_platform.features.expressions.request_features import RequestFeature\n"


def write(folder: Path, body: str) -> Path:
    path = folder / "request_features.py"
    path.write_text(IMPORTS + body, encoding="utf-8")
    return path


def test_features_are_read_in_order_and_may_use_those_before_them(tmp_path):
    path = write(
        tmp_path,
        "REQUEST_FEATURES = {\n"
        '    "km": RequestFeature(pl.col("miles") * 1.609, "Distance.", "km"),\n'
        '    "far": RequestFeature(pl.col("km") > 1000),\n}\n',
    )
    features = load_request_features(path)
    assert list(features) == ["km", "far"]
    assert (features["km"].description, features["km"].unit) == ("Distance.", "km")
    frame = add_request_features(pl.LazyFrame({"miles": [100, 1000, None]}), features).collect()
    assert frame["far"].to_list() == [False, True, None]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", r"wanted `REQUEST_FEATURES: dict\[str, RequestFeature\]`, found NoneType"),
        ('REQUEST_FEATURES = {"km": pl.col("miles")}', "wanted `REQUEST_FEATURES"),
        (
            'REQUEST_FEATURES = {"km": RequestFeature(pl.col("miles").rank())}',
            "request feature 'km': .* cannot be comp",
        ),
    ],
)
def test_a_mistake_in_the_file_names_it_and_the_feature(tmp_path, body, message):
    with pytest.raises(ValueError, match=message) as raised:
        load_request_features(write(tmp_path, body))
    assert "request_features.py" in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no Python file at .*absent\.py"):
        load_request_features(tmp_path / "absent.py")


def test_types_follow_from_the_inputs():
    features = {
        "at": RequestFeature(pl.col("departure") - pl.duration(hours=1)),
        "hour": RequestFeature(pl.col("departure").dt.hour()),
        "share": RequestFeature(pl.col("miles") / 100),
        "far": RequestFeature(pl.col("miles") > 100),
        "label": RequestFeature(pl.col("miles").cast(pl.String)),
    }
    assert derived_types(INPUTS, features) == {
        "at": "timestamp", "hour": "integer", "share": "number", "far": "boolean", "label": "string",
    }  # fmt: skip
    with pytest.raises(ValueError, match="request feature 'gap' is of type Duration"):
        derived_types(INPUTS, {"gap": RequestFeature(pl.col("departure") - pl.col("departure"))})


def test_a_feature_that_overflows_in_polars_is_refused():
    frame = pl.DataFrame(
        {"departure": [None], "miles": [2**62]}, schema_overrides={"departure": pl.Datetime("us", "UTC")}
    )
    doubled = {"doubled": RequestFeature(pl.col("miles") * 2)}
    with pytest.raises(ValueError, match=r"'doubled' differs: -9223372036854775808 by Polars, 9223372036854775808 onl"):
        check_request_feature_parity(frame, INPUTS, doubled)
    check_request_feature_parity(frame.with_columns(miles=3), INPUTS, doubled)


def test_the_examples_features_agree_on_every_hour_of_the_year(flights_lake):
    from ml_platform.defs import flight_delay

    features = load_request_features(Path(flight_delay.__path__[0]) / "request_features.py")
    flights = flights_lake.read("raw/flights").gather_every(37).collect()
    expected = add_request_features(flights.lazy(), features).select(list(features)).collect()
    trees = {name: evaluator(compile_tree(feature.expression)) for name, feature in features.items()}
    for row, wanted in zip(flights.to_dicts(), expected.to_dicts(), strict=True):
        for name, evaluate in trees.items():
            row[name] = evaluate(row)
        assert {name: row[name] for name in wanted} == wanted
