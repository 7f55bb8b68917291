"""What is guessed from a table is what a data scientist would write; what no model can be made of is refused."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.features.views.load import load_views
from ml_platform.lake.sources.source_spec import ColumnSpec
from ml_platform.new_model.draft import Draft, Wanted, draft_model
from ml_platform.new_model.split_size import size_split
from ml_platform.new_model.table_columns import table_columns
from ml_platform.new_model.target import guess_target
from ml_platform.spec.inputs import InputField
from ml_platform_tests.new_model.rows import calls, readings

TODAY = date(2024, 6, 1)


def draft(rows: pl.DataFrame, target: str, **options: Any) -> Draft:
    kept = {name: options.pop(name) for name in ("views", "contract", "key") if name in options}
    return draft_model(Wanted("a_model", "raw/rows", target, **options), rows, today=TODAY, **kept)


def fields(drafted: Draft) -> dict[str, InputField]:
    return {field.name: field for field in drafted.spec.inputs}


@pytest.fixture(scope="module")
def of_calls() -> Draft:
    return draft(calls(), "y")


@pytest.fixture(scope="module")
def of_readings() -> Draft:
    return draft(readings(), "power")


def test_words_become_a_binary_label_whose_yes_is_named(of_calls: Draft) -> None:
    assert of_calls.spec.task == "binary"
    assert '"y" = \'subscribed\' AS "y"' in of_calls.files["spine.sql"]
    assert "since 'no' reads as a no" in of_calls.files["spine.sql"]


def test_the_id_is_found_and_the_instant_is_drawn_from_it(of_calls: Draft) -> None:
    assert (of_calls.spec.id, of_calls.spec.timestamp) == ("client_id", "event_time")
    assert "event_time" not in fields(of_calls)
    assert 'md5_number_upper("client_id"::VARCHAR) % 2160' in of_calls.files["spine.sql"]
    assert of_calls.spec.promotion.block == "rows"
    assert (of_calls.spec.scoring.start, of_calls.spec.scoring.end) == (date(2024, 1, 1), date(2024, 3, 30))


def test_instants_of_some_hours_are_the_time_and_those_of_another_moment_are_named() -> None:
    when = pl.Series(
        "when", [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=number // 10) for number in range(400)]
    )
    of_hours = draft(calls().with_columns(when), "y")
    assert '"when" AS event_time' in of_hours.files["spine.sql"]
    assert (of_hours.spec.split.holdout, of_hours.spec.scoring.end) == (timedelta(hours=16), date(2024, 1, 2))
    drawn = draft(calls().with_columns(when.alias("due")), "y")
    assert any(note.startswith("due is not the time: by its name (due)") for note in drawn.notes)


def test_inputs_have_types_values_and_ranges_that_only_flag(of_calls: Draft) -> None:
    assert fields(of_calls)["job"].allowed == ("admin.", "retired", "services")
    assert (fields(of_calls)["age"].type, fields(of_calls)["age"].minimum) == ("integer", 0)
    assert fields(of_calls)["balance"].minimum is None  # there are debts
    assert {field.on_violation for field in of_calls.spec.inputs if field.minimum is not None or field.allowed} == {
        "flag"
    }


def test_a_strong_input_is_asked_about(of_calls: Draft) -> None:
    [line] = [line for line in of_calls.files["defs.yaml"].splitlines() if "name: duration" in line]
    assert line.endswith("alone: known at the instant of prediction?")
    assert any(note.startswith("Strong: duration") for note in of_calls.notes)


def test_a_small_table_gets_a_larger_holdout_and_a_gate_that_can_judge_it(of_calls: Draft) -> None:
    assert of_calls.spec.split.holdout == timedelta(days=36)
    assert of_calls.spec.promotion.min_rows == 128
    assert any("The table is small" in note for note in of_calls.notes)


def test_a_time_is_found_and_splits_the_rows(of_readings: Draft) -> None:
    assert (of_readings.spec.task, of_readings.spec.timestamp) == ("regression", "event_time")
    assert '"read_at" AS event_time' in of_readings.files["spine.sql"]
    assert fields(of_readings)["event_time"].type == "timestamp"
    assert not fields(of_readings)["event_time"].required
    assert (of_readings.spec.split.holdout, of_readings.spec.promotion.block) == (timedelta(days=28), "day")
    assert (of_readings.spec.scoring.start, of_readings.spec.scoring.end) == (date(2024, 1, 1), None)  # it grows


def test_a_table_that_has_ended_is_scored_to_its_last_day() -> None:
    drafted = draft_model(Wanted("power", "raw/rows", "power"), readings(), today=date(2026, 1, 1))
    assert drafted.spec.scoring.end == date(2024, 5, 29)


def test_without_an_id_one_is_made_of_the_inputs_and_the_same_rows_get_the_same(of_readings: Draft) -> None:
    assert of_readings.spec.id == "row_id"
    assert "row_number() OVER (PARTITION BY row_hash" in of_readings.files["spine.sql"]
    assert draft(readings(), "power").files == of_readings.files


def test_what_is_no_feature_is_left_out_with_the_reason(of_readings: Draft) -> None:
    assert "plant" not in fields(of_readings)
    assert "# plant is left out: the same in every row" in of_readings.files["defs.yaml"]


def test_codes_have_a_range_and_quantities_what_was_seen(of_readings: Draft) -> None:
    assert (fields(of_readings)["shift"].minimum, fields(of_readings)["shift"].maximum) == (0, 2)
    assert fields(of_readings)["load"].maximum is None
    assert " # 0.00" in of_readings.files["defs.yaml"].split("name: load", 1)[1].splitlines()[0]


def test_inputs_that_give_the_label_are_comments() -> None:
    rows = readings().with_columns(day=pl.col("load").floor(), night=pl.col("power") - pl.col("load").floor())
    drafted = draft(rows, "power")
    assert {"day", "night"}.isdisjoint(fields(drafted))
    assert '"night"' not in drafted.files["spine.sql"]
    assert "leakage: {allow: [day, night]}" in drafted.files["defs.yaml"]
    assert "    # - {name: night, type: number" in drafted.files["defs.yaml"]


def test_the_day_and_the_hour_are_one_instant() -> None:
    rows = readings().select(
        pl.col("read_at").dt.date().alias("day"), pl.col("read_at").dt.hour().alias("hr"), "load", "power"
    )
    drafted = draft(rows, "power")
    assert '("day"::TIMESTAMP + to_hours("hr"::INT)) AT TIME ZONE \'UTC\' AS event_time' in drafted.files["spine.sql"]
    assert fields(drafted)["hr"].maximum == 23


@pytest.mark.parametrize(
    ("labels", "task", "expression"),
    [
        (["Yes", "No"], "binary", '"y"'),
        ([True, False], "binary", '"y"'),
        ([0, 1], "binary", '"y"'),
        ([1, 2], "binary", '"y" = 2 AS "y"'),
        (["bad", "good"], "binary", '"y" = \'bad\' AS "y"'),
        (["red", "red", "blue"], "binary", '"y" = \'blue\' AS "y"'),  # the rarer
        (["red", "green", "blue"], "multiclass", '"y"'),
        ([0, 1, 2], "multiclass", '"y"'),
        ([3, 5, 9], "regression", '"y"'),
        (["1.5", "2", "3.25"], "regression", 'CASE WHEN isfinite(TRY_CAST("y" AS DOUBLE))'),
    ],
)
def test_the_task_follows_from_the_label(labels: list[Any], task: str, expression: str) -> None:
    rows = calls().drop("y", "duration", "balance")
    drafted = draft(rows.with_columns(pl.Series("y", (labels * rows.height)[: rows.height])), "y")
    assert drafted.spec.task == task
    assert f"    {expression}" in drafted.files["spine.sql"]


def test_a_task_that_is_given_is_kept() -> None:
    rows = calls().drop("y").with_columns(stars=pl.Series([0, 1, 2, 3] * 100))
    assert draft(rows, "stars").spec.task == "multiclass"
    assert draft(rows, "stars", task="regression").spec.task == "regression"


def test_names_of_sql_of_scores_and_with_blanks_are_no_trouble() -> None:
    rows = calls().rename(
        {
            "age": "select",
            "balance": "score",
            "job": "Beruf (Straße, Größe)",
            "y": "Erfolg im Jahr",
            "duration": "row_id",
        }
    )
    drafted = draft(rows, "Erfolg im Jahr")
    assert {"select", "score_input", "Beruf (Straße, Größe)", "row_id"} <= set(fields(drafted))
    assert '"score" AS "score_input"' in drafted.files["spine.sql"]
    assert drafted.spec.target == "Erfolg im Jahr"


def test_texts_that_are_numbers_are_read_as_numbers() -> None:
    rows = calls().with_columns(pl.col("balance").cast(pl.String), zip=pl.Series(["01234", "98765"] * 200))
    drafted = draft(rows, "y")
    assert 'TRY_CAST("balance" AS DOUBLE) AS "balance"' in drafted.files["spine.sql"]
    assert (fields(drafted)["balance"].type, fields(drafted)["zip"].type) == ("number", "string")


def test_missing_labels_are_counted_and_missing_values_need_not_be_sent() -> None:
    rows = calls().with_columns(
        y=pl.when(pl.int_range(pl.len()) < 30).then(None).otherwise("y"),
        age=pl.when(pl.int_range(pl.len()) < 5).then(None).otherwise("age"),
    )
    drafted = draft(rows, "y")
    assert "30 of 400 rows have no label in 'y': they are not trained on, and can be scored." in drafted.notes
    assert not fields(drafted)["age"].required
    assert fields(drafted)["job"].required


def test_what_the_contract_says_is_kept() -> None:
    contract = {"age": ColumnSpec(type="integer", minimum=18, maximum=120, unit="year", description="In full years.")}
    age = fields(draft(calls(), "y", contract=contract))["age"]
    assert (age.minimum, age.maximum, age.unit, age.on_violation) == (18, 120, "year", "reject")


def test_a_key_of_several_columns_is_the_id() -> None:
    rows = readings().with_columns(machine=pl.lit("a"))
    drafted = draft(rows, "power", key=["machine", "read_at"])
    assert 'concat_ws(\'-\', "machine", "read_at") AS row_id' in drafted.files["spine.sql"]


def test_views_whose_keys_the_table_has_are_offered(tmp_path: Path) -> None:
    for name, entity in {"clients": "client", "jobs": "job", "shops": "shop"}.items():
        (tmp_path / f"{name}.sql").write_text(
            f"/*\ndescription: Newest.\nowner: a@example.com\nentity: [{entity}]\n"
            f"columns: {{n: {{type: number, description: A number.}}}}\n*/\nSELECT {entity}, event_time, n FROM raw.x\n"
        )
    text = draft(calls(), "y", views=load_views(tmp_path)).files["defs.yaml"]
    assert "# - {view: clients, keys: {client: client_id}}" in text
    assert "# - {view: jobs}" in text
    assert "shops" not in text


def _changed(**columns: Any) -> pl.DataFrame:
    return calls().with_columns(**columns)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (calls(), {"target": "Y"}, "has no column 'Y'; did you mean 'y'"),
        (calls(), {"target": "client_id"}, "has another text in each row, as a name or an id has"),
        (_changed(n=pl.int_range(pl.len())), {"target": "n"}, "counts the rows: it is an id, not a label"),
        (_changed(y=pl.lit("no")), {"target": "y"}, r"has the same value in all rows that have one \('no'\)"),
        (calls(3), {"target": "y"}, "3 of 3 rows have a label, at least 100 are needed"),
        (_changed(y=pl.when(pl.int_range(pl.len()) < 50).then("y")), {"target": "y"}, "50 of 400 rows have a label"),
        (_changed(y=pl.lit(None, pl.String)), {"target": "y"}, "0 of 400 rows have a label"),
        (
            pl.DataFrame({"a": range(20_000), "y": [f"k{n % 10_000}" for n in range(20_000)]}),
            {"target": "y"},
            "10,000 distinct values, a multiclass task takes up to 200",
        ),
        (_changed(d=pl.lit(date(2024, 1, 1))), {"target": "d"}, "is a Date, which is no label"),
        (calls(), {"target": "y", "task": "regression"}, "is a string; a regression predicts numbers"),
        (calls(), {"target": "job", "task": "binary"}, "has 3 distinct values, a binary task wants two"),
        (calls(), {"target": "y", "id": "age"}, "rows have the id of another row; leave --id out"),
        (calls(), {"target": "y", "id": "client"}, "has no column 'client'; did you mean 'client_id'"),
        (calls(), {"target": "y", "time": "age"}, "is a integer, a date or an instant is wanted"),
        (calls().select("client_id", "y"), {"target": "y"}, "no column is left to predict 'y' from"),
        (
            calls().select("client_id", "y", same=pl.col("y") == "no"),
            {"target": "y"},
            "every input knows it already",
        ),
    ],
)
def test_what_no_model_can_be_made_of_is_refused(rows: pl.DataFrame, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, LookupError), match=message):
        draft(rows, **options)


@pytest.mark.parametrize("name", ["Bank", "1x", "a-b", "x" * 70, "raw", "features"])
def test_what_no_model_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"a model's name is|is a group of assets"):
        draft_model(Wanted(name, "raw/rows", "y"), calls(), today=TODAY)


def test_a_time_of_two_values_is_refused() -> None:
    rows = _changed(at=pl.Series([datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)] * 200))
    with pytest.raises(ValueError, match="has 2 distinct values: rows cannot be split by it"):
        draft(rows, "y", time="at")
    assert "event_time" not in fields(draft(rows, "y"))


def test_rows_that_are_nearly_all_equal_are_spread_all_the_same() -> None:
    rows = pl.DataFrame({"weekday": [n % 7 for n in range(400)], "y": [n % 3 == 0 for n in range(400)]})
    assert "md5_number_upper(row_id) % 2160" in draft(rows, "y").files["spine.sql"]


def test_equal_rows_are_in_one_part_of_the_split() -> None:
    some = pl.DataFrame({"x": [number / 7 for number in range(3000)], "y": [number % 2 for number in range(3000)]})
    drafted = draft(pl.concat([some, some.head(500)]), "y")
    assert "% 2160" in drafted.files["spine.sql"]
    assert f"md5_number_upper({drafted.spec.id})" not in drafted.files["spine.sql"].replace('"', "")
    assert any(
        note.startswith("500 rows have the inputs of another row; they are in one part") for note in drafted.notes
    )


@pytest.mark.parametrize(("no", "yes"), [("nein", "ja"), ("off", "on"), ("Non", "Oui"), ("não", "sim")])
def test_yes_is_yes_in_other_languages_however_often_it_occurs(no: str, yes: str) -> None:
    rows = calls().with_columns(y=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit(no)).otherwise(pl.lit(yes)))
    assert f"true is '{yes}'" in draft(rows, "y").notes[0]


def test_classes_that_differ_only_in_blanks_are_refused() -> None:
    rows = calls().with_columns(y=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("b ")).otherwise("y"))
    rows = rows.with_columns(y=pl.when(pl.int_range(pl.len()) % 3 == 1).then(pl.lit("b")).otherwise("y"))
    with pytest.raises(ValueError, match=r"differ only in blanks around them: 'b' and 'b '; trim them"):
        draft(rows, "y")


@pytest.mark.parametrize("as_float", [False, True])
def test_rows_of_an_entity_stay_together_where_there_is_no_time(as_float: bool) -> None:
    number = pl.int_range(pl.len())
    rows = calls().drop("client_id").with_columns(id=number + 1000, customer_id=number // 4)
    if as_float:
        rows = rows.with_columns(pl.col("id", "customer_id").cast(pl.Float64))
    made = draft(rows, "y")
    assert made.spec.id == "id"
    assert fields(made)["id"].type == "integer"
    assert "customer_id" not in fields(made)
    assert 'md5_number_upper("customer_id"::VARCHAR)' in made.files["spine.sql"]
    assert "Rows of one customer_id stay together in one part of the split." in made.notes
    some = rows.with_columns(pl.when(number > 7).then("customer_id"))
    assert 'coalesce("customer_id"::VARCHAR, "id"::VARCHAR)' in draft(some, "y").files["spine.sql"]


def test_the_task_and_what_is_true_are_told(of_calls: Draft, of_readings: Draft) -> None:
    assert of_calls.notes[0].startswith("Task: binary; the label: true is 'subscribed'")
    assert of_readings.notes[0].startswith("Task: regression")


def test_a_class_too_rare_for_any_holdout_is_told() -> None:
    rows = calls().with_columns(y=pl.int_range(pl.len()) < 5)
    (note,) = [note for note in draft(rows, "y").notes if "the gate wants" in note]
    assert note.startswith("Only 5 rows are of another class than the most frequent")


def test_the_holdout_of_rare_positives_is_as_long_as_the_gate_needs() -> None:
    hours = pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 12, 31), "1h", time_zone="UTC", eager=True)
    assert size_split(hours, rare=hours[::10], is_drawn=False, today=TODAY).split == {}, "28 days have 67"
    rare = hours[::28]  # 24 in 28 days
    sized = size_split(hours, rare=rare, is_drawn=False, today=TODAY)
    holdout = timedelta(days=int(sized.split["holdout"].split()[0]))
    assert (rare > hours[-1] - holdout).sum() >= 30
    assert not sized.notes
    early = size_split(hours, rare=hours[:60], is_drawn=False, today=TODAY)
    assert "The holdout has about 0 rows of another class than the most frequent, the gate wants 30" in early.notes[0]
    drawn = size_split(hours[:1000], is_drawn=True, today=TODAY, rare=hours[:45])
    assert "about 18 rows" in drawn.notes[0]


def test_many_columns_that_are_no_inputs_are_told_in_a_few_words() -> None:
    texts = {f"name_{number}": pl.Series([f"text {number} {row} x" for row in range(400)]) for number in range(60)}
    notes = draft(readings().head(400).with_columns(**texts), "power").notes
    (note,) = [note for note in notes if note.startswith("No inputs: ")]
    assert "name_5 and 54 more (another text in every row" in note  # name_0 is the id
    assert len(note) < 500


def test_a_label_that_can_hardly_be_right_is_named() -> None:
    labels = pl.Series("y", [float(n % 97 + n / 7) for n in range(200)])
    rows = pl.DataFrame({"x": range(200), "y": labels})
    columns = table_columns(rows)
    assert guess_target("y", columns, labels, table="raw/t").notes == ()
    labels[41] = 1e12
    columns = table_columns(rows.with_columns(labels))
    [note] = guess_target("y", columns, labels, table="raw/t").notes
    assert note.startswith("Outlier: y 1e+12 in row 42 of those that were read, where the median is ")
