"""The catalogue as a document: one entry for each thing that people look for, and where it is kept.

    <home>/catalogue/catalogue.json     replaced by `governance/catalogue` and `ml-platform catalogue refresh`

Serving shows it without a lake or a project beside it, so this imports nothing but the standard library and msgspec.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from ml_platform.atomic_files import replace_file

Kind = Literal[
    "table",
    "view",
    "model",
    "endpoint",
    "training set",
    "version",
    "source",
    "stream",
    "feature service",
    "notebook",
    "term",
]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order in which people look for them
Verdict = Literal["passed", "warned", "failed", "not run"]
FORMAT = 1


class ColumnRef(Struct, frozen=True, omit_defaults=True):
    """A column of an entry."""

    entry: str
    column: str
    is_direct: bool = True  # values flow along the edge; else it decides which rows there are, or where they come from

    def __str__(self) -> str:
        return f"{self.entry}.{self.column}"


class ColumnLineage(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a column depends on, and what depends on it, at first hand."""

    name: str
    upstream: tuple[ColumnRef, ...] = ()
    downstream: tuple[ColumnRef, ...] = ()


class Column(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A column, feature or input."""

    name: str
    type: str = ""
    description: str = ""
    unit: str | None = None
    rules: tuple[str, ...] = ()  # of the contract, in words
    tags: tuple[str, ...] = ()
    flowing: dict[str, tuple[ColumnRef, ...]] = {}  # tags that come from other columns → where they were set
    terms: tuple[str, ...] = ()  # of the glossary


class Check(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A quality check, and what it last found."""

    name: str
    description: str = ""
    verdict: Verdict = "not run"
    at: str | None = None  # ISO 8601, UTC
    says: str = ""


class Change(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A step in the history of a schema, or of what serves."""

    version: int
    at: str | None = None
    what: str


class Entry(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One thing of the catalogue, under the name by which rights are granted on it: `raw.flights`, `model:churn`."""

    name: str
    kind: Kind
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}
    columns: tuple[Column, ...] = ()
    rules: tuple[str, ...] = ()  # of the contract, over several columns
    facts: dict[str, str] = {}  # what else there is to know, in words
    rows: int | None = None
    version: int | None = None  # newest, of a table in the lake
    updated_at: str | None = None  # newest commit or release; ISO 8601, UTC
    checks: tuple[Check, ...] = ()
    upstream: tuple[str, ...] = ()  # what it is made of
    graph_name: str = ""  # in the column graph, if it is there
    lineage: tuple[ColumnLineage, ...] = ()
    how: dict[str, str] = {}  # how to read it: SQL, Python, HTTP
    history: tuple[Change, ...] = ()  # oldest first
    terms: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # by which it is found too: synonyms of its terms
    problems: tuple[str, ...] = ()  # what could not be said of it, and why
    model: str | None = None  # that it belongs to
    table: str | None = None  # of the lake, where it has rows: `raw/flights`

    @property
    def title(self) -> str:
        """Its name without the kind before it.

        Examples
        --------
        >>> Entry(name="model:churn", kind="model").title, Entry(name="raw.flights", kind="table").title
        ('churn', 'raw.flights')
        """
        return self.name.partition(":")[2] or self.name


class Catalogue(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """All entries, and what could not be read when they were collected."""

    made_at: datetime
    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Refuse a document of another engine (raises ValueError)."""
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, wanted {FORMAT}")


class CatalogueUnreadable(ValueError):
    """The stored catalogue is damaged, or of another engine."""


class View:
    """A catalogue as one reader may see it: entries that may not be browsed are nowhere in it.

    Parameters
    ----------
    catalogue
        All of it.
    may_browse
        Whether the reader may know of an entry; of everything by default.
    """

    def __init__(self, catalogue: Catalogue, may_browse: Callable[[Entry], bool] = lambda _: True) -> None:
        self.made_at = catalogue.made_at
        self.problems = catalogue.problems
        seen = [one for one in catalogue.entries if may_browse(one)]
        self.entries = {one.name: one for one in seen}
        if len(seen) < len(catalogue.entries):  # what is left names nothing of what is not
            self.problems = ()
            self.entries = {one.name: self._without_hidden(one) for one in seen}
        self._downstream: dict[str, list[str]] = {}
        for one in self.entries.values():
            for name in one.upstream:
                self._downstream.setdefault(name, []).append(one.name)

    def _without_hidden(self, entry: Entry) -> Entry:
        facts = dict(entry.facts)
        for name in ("linked with", "members", "tables", "trained on", "fills", "rows that break the contract"):
            if name in facts:
                told = [one for one in facts[name].split(", ") if self._is_known(one)]
                facts[name] = ", ".join(told)
        upstream = tuple(name for name in entry.upstream if name in self.entries)
        return msgspec.structs.replace(
            entry,
            upstream=upstream,
            facts=facts,
            lineage=tuple(
                ColumnLineage(name=one.name, upstream=self._known(one.upstream), downstream=self._known(one.downstream))
                for one in entry.lineage
            ),
            columns=tuple(
                msgspec.structs.replace(
                    one, flowing={tag: self._known(sources) for tag, sources in one.flowing.items()}
                )
                if one.flowing
                else one
                for one in entry.columns
            ),
        )

    def _known(self, columns: tuple[ColumnRef, ...]) -> tuple[ColumnRef, ...]:
        return tuple(one for one in columns if one.entry in self.entries)

    def _is_known(self, told: str) -> bool:
        """Whether a fact speaks of something that the reader may know of: by its name, or as the lake writes it."""
        name = told.partition(" ")[0].replace("/", ".")
        names = (
            name,
            name.rpartition(".")[0],
            f"endpoint:{name}",
            f"training_set:{name.removeprefix('training_sets.')}",
        )
        return any(one in self.entries for one in names)

    def get(self, name: str) -> Entry:
        """The entry of a name, or of a short name that only one has (raises LookupError, with the nearest names)."""
        wanted = name.strip().replace("/", ".") if name not in self.entries else name
        if wanted in self.entries:
            return self.entries[wanted]
        short = [one for one in self.entries.values() if one.title == name.strip()]
        first = sorted(short, key=lambda one: KINDS.index(one.kind))
        if first:
            return first[0]
        from difflib import get_close_matches

        near = get_close_matches(
            wanted, [*self.entries, *(one.title for one in self.entries.values())], n=3, cutoff=0.5
        )
        hint = f"; the nearest: {', '.join(dict.fromkeys(near))}" if near else ""
        raise LookupError(f"nothing in the catalogue is called '{name}'{hint}. ml-platform catalogue search finds it")

    def upstream(self, entry: Entry) -> list[Entry]:
        """What an entry is made of."""
        return [self.entries[name] for name in entry.upstream if name in self.entries]

    def downstream(self, entry: Entry) -> list[Entry]:
        """What is made of an entry, by kind."""
        made = {name: self.entries[name] for name in self._downstream.get(entry.name, ())}
        return sorted(made.values(), key=lambda one: (KINDS.index(one.kind), one.name))

    def models_of(self, entry: Entry) -> list[Entry]:
        """Models that are made of an entry, however far down."""
        reached, waiting, models = {entry.name}, [entry], {}
        while waiting:
            for one in self.downstream(waiting.pop()):
                if one.name in reached:
                    continue
                reached.add(one.name)
                if one.kind == "model":
                    models[one.name] = one
                else:
                    waiting.append(one)
        return [models[name] for name in sorted(models)]

    def linked(self, term: Entry) -> Iterator[tuple[str, Entry]]:
        """What a term of the glossary is linked with: the link as it was written, and the entry."""
        for link in term.facts.get("linked with", "").split(", "):
            entry = self.entries.get(link) or self.entries.get(link.rpartition(".")[0])
            if entry is not None:
                yield link, entry


def catalogue_path(home: Path) -> Path:
    """File of the catalogue in the folder of all state."""
    return home / "catalogue" / "catalogue.json"


def store_catalogue(home: Path, catalogue: Catalogue) -> Path:
    """Put a catalogue in place of the one before."""
    path = catalogue_path(home)
    replace_file(path, msgspec.json.encode(catalogue))
    return path


def read_catalogue(home: Path) -> Catalogue | None:
    """The stored catalogue; None before the first.

    Raises
    ------
    CatalogueUnreadable
        When it is damaged, or another engine wrote it.
    """
    path = catalogue_path(home)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Catalogue)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CatalogueUnreadable(
            f"{path} cannot be read ({error}): write it again by `ml-platform catalogue refresh`"
        ) from error
