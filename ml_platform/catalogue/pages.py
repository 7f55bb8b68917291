"""The pages of the catalogue: the search, and one for each entry. The console and the static export show the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ml_platform.catalogue.document import KINDS, ColumnLineage, Entry, Kind, View
from ml_platform.catalogue.search import choices, is_made, search

if TYPE_CHECKING:
    from ml_platform.governance.recorded_reads import ReadAnswer

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
PAGE = 50  # hits on a page
SHORT = 180  # letters of a description in a list
MOST_NODES = 30  # in the lineage of an entry, and of each of its columns
HEADINGS: dict[Kind, str] = {
    "table": "Tables",
    "view": "Feature views",
    "model": "Models",
    "endpoint": "Endpoints",
    "training set": "Training sets",
    "version": "Versions",
    "source": "Sources",
    "stream": "Streams",
    "feature service": "Feature services",
    "notebook": "Notebooks",
    "term": "Terms",
}
Link = Callable[[str], str]
LineageLink = Callable[[str, str | None], str]


@dataclass(frozen=True)
class Sample:
    """A few rows of a table, as texts: what the reader may see of them.

    Attributes
    ----------
    columns, rows
        Names, and values as texts; None for a missing one.
    says
        Why there are none, or what is left out of them.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str | None, ...], ...] = ()
    says: str = ""


def search_page(view: View, parameters: Mapping[str, str], *, link: Link, address: str = "catalogue") -> dict[str, Any]:
    """What the page of the search shows.

    Parameters
    ----------
    view
        What the reader may see.
    parameters
        `q`, `kind`, `owner`, `tag` and `page`, as a form sends them; what is unknown finds nothing.
    link
        Name of an entry → address of its page.
    address
        Of the search itself.
    """
    query, kind, owner, tag = (parameters.get(name, "") for name in ("q", "kind", "owner", "tag"))
    hits = search(view, query, kinds=[kind] if kind else (), owner=owner or None, tag=tag or None)
    page = max(1, int(parameters["page"])) if parameters.get("page", "").isdecimal() else 1
    pages = max(1, -(-len(hits) // PAGE))
    page = min(page, pages)
    kept = {name: value for name, value in (("q", query), ("kind", kind), ("owner", owner), ("tag", tag)) if value}
    return {
        "query": query,
        "chosen": {"kind": kind, "owner": owner, "tag": tag},
        "choices": choices(view),
        "hits": hits[(page - 1) * PAGE : page * PAGE],
        "total": len(hits),
        "page": page,
        "before": f"{address}?{urlencode({**kept, 'page': page - 1})}" if page > 1 else None,
        "after": f"{address}?{urlencode({**kept, 'page': page + 1})}" if page < pages else None,
        "narrow": lambda **one: f"{address}?{urlencode({**kept, **one})}",
        "counts": {one: sum(1 for entry in view.entries.values() if entry.kind == one) for one in KINDS},
        "headings": HEADINGS,
        "link": link,
        "made_at": view.made_at,
        "problems": view.problems,
    }


def entry_page(
    view: View,
    entry: Entry,
    *,
    link: Link,
    sample: Sample | None = None,
    readers: "ReadAnswer | str | None" = None,
    readers_link: str | None = None,
    lineage_link: LineageLink | None = None,
) -> dict[str, Any]:
    """What the page of an entry shows: everything that is known, and what it is made of and made into.

    Parameters
    ----------
    view
        What the reader may see.
    entry
        One of it.
    link
        Name of an entry → address of its page.
    sample
        Rows to show.
    readers, readers_link
        Who read it, or why that is not known; address that shows it. None for a reader who may not see it.
    lineage_link
        Object of the column graph, and column or None for all → address of its page; None where there are no such
        pages.
    """
    upstream, downstream = view.upstream(entry), view.downstream(entry)
    into, out_of = _shares(upstream, downstream)
    return {
        "entry": entry,
        "upstream": upstream[:into],
        "downstream": downstream[:out_of],
        "more_upstream": len(upstream[into:]),
        "more_downstream": len(downstream[out_of:]),
        "lineage": [_column(one) for one in entry.lineage if one.upstream or one.downstream],
        "lineage_link": lineage_link,
        "readers": readers,
        "readers_link": readers_link,
        "models": [one for one in view.models_of(entry) if one.name != f"model:{entry.model}"],
        "linked": list(view.linked(entry)) if entry.kind == "term" else [],
        "known": view.entries,
        "sample": sample,
        "link": link,
        "made_at": view.made_at,
    }


def _shares(upstream: Sequence[Any], downstream: Sequence[Any]) -> tuple[int, int]:
    """How many of two lists are shown, `MOST_NODES` together.

    Examples
    --------
    >>> _shares(range(3), range(90)), _shares(range(90), range(90))
    ((3, 27), (15, 15))
    """
    half = MOST_NODES // 2
    into = min(len(upstream), max(half, MOST_NODES - len(downstream)))
    return into, min(len(downstream), MOST_NODES - into)


def _column(lineage: ColumnLineage) -> dict[str, Any]:
    into, out_of = _shares(lineage.upstream, lineage.downstream)
    return {
        "name": lineage.name,
        "upstream": lineage.upstream[:into],
        "downstream": lineage.downstream[:out_of],
        "more_upstream": len(lineage.upstream[into:]),
        "more_downstream": len(lineage.downstream[out_of:]),
    }


def entry_facts(view: View, entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    import msgspec

    return {
        "entry": msgspec.to_builtins(entry),
        "upstream": [one.name for one in view.upstream(entry)],
        "downstream": [one.name for one in view.downstream(entry)],
        "models": [one.name for one in view.models_of(entry)],
    }


def console_link(root: str) -> Link:
    """Addresses of the console's pages, from a page at `root`."""
    return lambda name: f"{root}catalogue/{quote(name, safe='@')}"


def lineage_link(root: str) -> LineageLink:
    """Addresses of the console's pages of the column graph, from a page at `root`."""

    def link(object_: str, column: str | None) -> str:
        parts = {"object": object_, **({"column": column} if column is not None else {})}
        return f"{root}lineage/console?{urlencode(parts)}"

    return link


def short(text: str, most: int = SHORT) -> str:
    """The beginning of a text, up to the end of a word.

    Examples
    --------
    >>> short("One two three", 9), short("One")
    ('One two …', 'One')
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most].rsplit(' ', 1)[0]} …"


def when(value: str | datetime | None) -> str:
    """An instant to the minute, in UTC; a dash for none, the text itself where it is no instant."""
    if not value:
        return "–"
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return str(value)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def since(value: str | None, now: datetime | None = None) -> str:
    """How long ago an instant was, in the unit that fits; empty for none.

    Examples
    --------
    >>> since("2024-01-01T00:00:00Z", datetime(2024, 1, 3, 1, tzinfo=UTC))
    '2 days ago'
    """
    if not value:
        return ""
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(value)).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if (count := int(seconds // size)) >= 1:
            return f"{count:,} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


FILTERS: dict[str, Callable[..., str]] = {"short": short, "when": when, "since": since}


def index_of(view: View, link: Link) -> list[dict[str, Any]]:
    """What the script of the static export searches in: one record for each entry, with short keys."""
    return [
        {
            "n": one.name,
            "t": one.title,
            "k": one.kind,
            "u": link(one.name),
            "d": short(one.description),
            "o": one.owner,
            "g": [f"{name}={value}" if value else name for name, value in one.tags.items()],
            "c": [[column.name, column.description] for column in one.columns],
            "w": " ".join((*one.terms, *one.words, *(term for column in one.columns for term in column.terms))),
            "x": " ".join((one.kind, *(check.name for check in one.checks), *one.rules, *one.facts.values())),
            "m": is_made(one),
        }
        for one in view.entries.values()
    ]
