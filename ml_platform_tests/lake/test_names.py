"""Names that can be read back, of tables and of the folder that they are in."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.maintenance import maintain
from ml_platform.lake.storage.merge import merge
from ml_platform.lake.storage.tables import Lake

FRAME = pl.DataFrame({"part": ["ü x/%", "a=b"], "value": [1, 2]})


@pytest.mark.parametrize(
    "name", ["../x", "raw/../../x", "/tmp/x", "raw", "raw/", "raw//x", "raw/a b", "raw/ü", "raw/.x", "raw/x%20y", ""]
)
def test_a_table_cannot_lie_outside_of_the_lake_or_have_a_name_that_is_not_found_again(lake: Lake, name: str) -> None:
    with pytest.raises(ValueError, match=r"A table is named schema/name, like raw/flights.* found '"):
        lake.append(name, FRAME)
    with pytest.raises(ValueError, match="A table is named schema/name"):
        lake.read(name)
    assert lake.tables() == []


@pytest.mark.parametrize("folder", ["my lake", "Größe & Co", "50#", "o'clock"])
def test_a_lake_can_lie_in_a_folder_of_any_usual_name(tmp_path: Path, folder: str) -> None:
    lake = Lake(str(tmp_path / folder))
    for _ in range(2):
        lake.append("raw/x", FRAME, partition_by=["part"])
    assert lake.read("raw/x", version=0).sort("value").collect().equals(FRAME)
    assert query(lake, "SELECT part, sum(value)::INT FROM raw.x GROUP BY 1 ORDER BY 2").rows() == [
        ("ü x/%", 2),
        ("a=b", 4),
    ]
    assert maintain(lake, retention=timedelta(0))[0].files_freed == 4
    assert lake.tables() == ["raw/x"]
    assert lake.read("raw/x").collect()["value"].sort().to_list() == [1, 1, 2, 2]


@pytest.mark.parametrize("folder", ["a%20b", "day=1", "a[1]"])
def test_a_folder_whose_tables_could_not_be_read_back_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match=r"could not be read back: choose another by ML_PLATFORM_LAKE_URI"):
        Lake(str(tmp_path / folder))


def test_columns_can_have_any_name(lake: Lake) -> None:
    odd = pl.DataFrame({'say "x"': [1, 2], "größe in m": [1.5, 2.5], "select": ["a", "b"], "a.b,c;d": [True, False]})
    for _ in range(2):
        merge(lake, "raw/odd", odd, on=['say "x"', "a.b,c;d"])
    assert lake.read("raw/odd").sort("select").collect().equals(odd)
    assert query(lake, 'SELECT "größe in m" AS m, "select" FROM raw.odd WHERE "a.b,c;d"').rows() == [(1.5, "a")]
