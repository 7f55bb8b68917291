"""A lake with secrets in it, and somebody who may see a part: the ground of the tests that try to see more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ml_platform.lake.access import AccessDenied, TableAccess, TableRead, object_name
from ml_platform.lake.ingestion.ingest import QUARANTINE, quarantine_of
from ml_platform.lake.storage.tables import Lake

# What must never be seen: names in a masked column, cities of hidden rows, a column that is not granted.
SECRETS = ("SECRET", "Hidden", "77777", "55555", "Oldsecret")
ADA = "user:ada"


@dataclass
class SmallGuard:
    """A guard that grants what it is told, table by table."""

    tables: dict[str, TableAccess]
    principal: str = ADA
    privileges: set[tuple[str, str]] = field(default_factory=set)

    def access(self, table: str, columns: Sequence[str]) -> TableAccess:
        if table not in self.tables:
            raise AccessDenied(self.principal, "select", object_name(table), "Ask bob, who owns it.")
        return self.tables[table]

    def browses(self, table: str) -> bool:
        return table in self.tables or table == "raw/known"

    def check(self, privilege: str, name: str) -> None:
        if (privilege, name) not in self.privileges:
            raise AccessDenied(self.principal, privilege, name)


# People: names masked, the salary not granted, people of other cities absent. The columns in an order of their own.
PEOPLE = TableAccess(
    {"id": None, "city": None, "name": "left(name, 1) || '***'", "age": None, "code": "NULL"}, "city = 'Paris'"
)
GRANTS = {
    "raw/people": PEOPLE,
    "raw/open": TableAccess(),
    "raw/letters": TableAccess({"id": None}),
    "features/visits": TableAccess({"id": None, "event_time": None, "place": "'#'"}, "id <> 4"),
}


def people() -> pl.DataFrame:
    """The rows as they are."""
    return pl.DataFrame({
        "id": [1, 2, 3, 4],
        "name": ["SECRETAda", "SECRETBob", "SECRETCy", "SECRETDi"],
        "city": ["Paris", "Paris", "Hidden-1", "Hidden-2"],
        "age": [30, 40, 77777, 77777],
        "salary": [55555, 55555, 55555, 55555],
        "code": ["11", "22", "SECRETx", "SECRETy"],
    })  # fmt: skip


def make_lake(folder: Path) -> Lake:
    """Write the lake, as the platform itself."""
    lake = Lake(str(folder / "lake"))
    lake.append("raw/people", people().with_columns(name=pl.lit("Oldsecret")))
    lake.replace("raw/people", people())
    lake.replace("raw/people", people().filter(pl.col("city") == "Hidden-1"), where="city = 'Hidden-1'")
    lake.append("raw/open", pl.DataFrame({"id": [1, 2, 3, 4], "x": [0.5, 1.5, 2.5, 3.5]}))
    lake.append("raw/letters", pl.DataFrame({"id": [1], "text": ["SECRETletter"]}))
    lake.append("raw/known", pl.DataFrame({"id": [1], "text": ["SECRETknown"]}))
    lake.append("hidden/vault", pl.DataFrame({"id": [1], "text": ["SECRETvault"]}))
    at = datetime(2024, 5, 1, tzinfo=UTC)
    visits = pl.DataFrame({"id": [1, 4], "event_time": [at, at], "place": ["SECRETbar", "Hidden-place"]})
    lake.append("features/visits", visits)
    pushed = visits.with_columns(
        pl.lit("SECRETpush").alias("place"), pl.lit(at).alias("__pushed_at"), pl.lit("r").alias("__request_id"),
        pl.lit(0).alias("__row"),
    )  # fmt: skip
    lake.append("pushed/visits__0123456789ab", pushed)
    rejected = pl.DataFrame(
        {
            "day": [None], "source": ["people.csv"], "source_row": [7], "quarantined_at": [at],
            "reasons": [["age: not a number"]], "row": ['{"name": "SECRETrejected"}'],
        },
        schema=QUARANTINE,
    )  # fmt: skip
    lake.append(quarantine_of("raw/people"), rejected)
    lake.append("governance/audit", pl.DataFrame({"id": [1], "line": ["SECRETline"]}))
    return lake


def as_ada(
    lake: Lake, grants: Mapping[str, TableAccess] | None = None, *, reads: list[TableRead] | None = None
) -> Lake:
    """The same lake as Ada may see it, by `GRANTS` and others."""
    return Lake(
        lake.uri,
        guard=SmallGuard({**GRANTS, **(grants or {})}),
        reads=None if reads is None else reads.append,
        path="sql",
    )


def leaks(value: object) -> list[str]:
    """The secrets that a text, frame or error tells."""
    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    text = value.write_json() if isinstance(value, pl.DataFrame) else f"{value}"
    return [secret for secret in SECRETS if secret in text]
