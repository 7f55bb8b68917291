"""Search over everything in a catalogue: names, columns, descriptions, tags, owners, terms; words may have typos.

A word of the query is looked for as a whole word, as the beginning of one, inside one, and with one or two letters
wrong. Every word has to be somewhere in an entry; where it is decides the order: a name counts more than a column, a
column more than a description. `static/catalogue.js` ranks by the same rules.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ml_platform.catalogue.document import KINDS, Entry, View

WEIGHTS = {"name": 10.0, "term": 6.0, "column": 5.0, "tag": 4.0, "owner": 3.0, "description": 2.0, "other": 1.0}
MOST_COLUMNS = 5  # that a hit names
IN_DESCRIPTION = 0.5  # what a word in a column's description counts, beside one in its name
MADE = 0.7  # what hits count in what the platform makes by itself of other entries
_WORD = re.compile(r"[^\W_]+")
_CASES = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Hit:
    """An entry that a query finds.

    Attributes
    ----------
    entry
        The entry.
    score
        How well it fits, larger is better; comparable within one search.
    columns
        Its columns that fit, best first.
    """

    entry: Entry
    score: float
    columns: tuple[str, ...] = ()


def words(text: str) -> list[str]:
    """Words of a text or name, in lower case.

    Examples
    --------
    >>> words("raw.arr_delay of FlightsFile, 3h")
    ['raw', 'arr', 'delay', 'of', 'flights', 'file', '3h']
    """
    return [word.lower() for word in _WORD.findall(_CASES.sub(" ", text))]


def likeness(wanted: str, word: str) -> float:
    """How well a word fits a wanted one, 0 to 1; both in lower case.

    Examples
    --------
    >>> likeness("delay", "delay"), likeness("delay", "delayed"), likeness("dealy", "delay"), likeness("dog", "delay")
    (1.0, 0.8, 0.5, 0.0)
    """
    if wanted == word:
        return 1.0
    if word.startswith(wanted):
        return 0.8
    if len(wanted) >= 3 and wanted in word:
        return 0.6
    allowed = 0 if len(wanted) < 4 else 1 if len(wanted) < 8 else 2
    if not allowed or wanted[0] != word[0] or abs(len(wanted) - len(word)) > allowed:
        return 0.0
    wrong = _distance(wanted, word, allowed)
    return 0.0 if wrong > allowed else 0.5 if wrong == 1 else 0.35


def search(
    view: View,
    query: str = "",
    *,
    kinds: Iterable[str] = (),
    owner: str | None = None,
    tag: str | None = None,
) -> list[Hit]:
    """Find entries, the best first.

    Parameters
    ----------
    view
        What the reader may see.
    query
        Words; all entries when empty, by kind and name.
    kinds
        Only of these kinds; of all when empty.
    owner
        Only of this owner.
    tag
        Only with this tag: `name` or `name=value`; of an entry or one of its columns.
    """
    chosen = set(kinds)
    entries = [
        one
        for one in view.entries.values()
        if (not chosen or one.kind in chosen)
        and (not owner or one.owner == owner)
        and (not tag or _is_tagged(one, tag))
    ]
    wanted = list(dict.fromkeys(words(query)))
    if not wanted:
        if query.strip():
            return []
        return [Hit(one, 0.0) for one in sorted(entries, key=lambda one: (KINDS.index(one.kind), one.name))]
    fits: dict[str, dict[str, float]] = {one: {} for one in wanted}  # the likeness of each distinct word, once
    hits = [hit for entry in entries if (hit := _hit(entry, query, wanted, fits)) is not None]
    return sorted(hits, key=lambda hit: (-hit.score, KINDS.index(hit.entry.kind), hit.entry.name))


def choices(view: View) -> Mapping[str, list[str]]:
    """What a search can be narrowed to: kinds, owners and tags that there are."""
    entries = view.entries.values()
    tags = {f"{name}={value}" if value else name for one in entries for name, value in one.tags.items()}
    tags |= {tag for one in entries for column in one.columns for tag in column.tags}
    return {
        "kinds": [kind for kind in KINDS if any(one.kind == kind for one in entries)],
        "owners": sorted({one.owner for one in entries if one.owner}),
        "tags": sorted(tags),
    }


def _is_tagged(entry: Entry, tag: str) -> bool:
    name, _, value = tag.partition("=")
    if entry.tags.get(name, None) is not None and (not value or entry.tags[name] == value):
        return True
    return any(tag in column.tags or (not value and name in column.tags) for column in entry.columns)


def _hit(entry: Entry, query: str, wanted: list[str], fits: dict[str, dict[str, float]]) -> Hit | None:
    fields, columns = _indexed(entry)
    total, columns_total = 0.0, {name: 0.0 for name, _ in columns}
    for word in wanted:
        known, best = fits[word], 0.0
        for weight, texts in fields:
            best = max(best, weight * _best_fit(word, texts[0], known))
        for name, texts in columns:
            fit = max(_best_fit(word, texts[0], known), IN_DESCRIPTION * _best_fit(word, texts[1], known))
            columns_total[name] += fit
            best = max(best, WEIGHTS["column"] * fit)
        if not best:
            return None
        total += best
    best_column = max(columns_total.values(), default=0.0)
    total += WEIGHTS["column"] * (len(wanted) > 1 and best_column > 0.75 * len(wanted))  # one column has all the words
    total *= MADE if is_made(entry) else 1.0
    exact = query.strip().lower()
    if exact in {entry.name.lower(), entry.title.lower(), entry.title.rpartition(".")[2].lower()}:
        total += 2 * WEIGHTS["name"]
    ranked = sorted(
        (name for name in columns_total if columns_total[name]), key=lambda name: (-columns_total[name], name)
    )
    return Hit(entry, total, tuple(ranked[:MOST_COLUMNS]))


def _best_fit(wanted: str, held: tuple[str, ...], known: dict[str, float]) -> float:
    best = 0.0
    for one in held:
        fit = known.get(one)
        if fit is None:
            fit = known[one] = likeness(wanted, one)
        best = max(best, fit)
    return best


def is_made(entry: Entry) -> bool:
    """Whether the platform makes an entry by itself of others that have the same words."""
    if entry.kind in ("source", "version", "training set"):
        return True
    schema = (entry.table or "").partition("/")[0]
    return schema in ("predictions", "inference_log", "quarantine", "monitoring", "governance")


@lru_cache(maxsize=100_000)
def _words_once(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words(text)))


_Texts = tuple[tuple[str, ...], ...]


def _indexed(entry: Entry) -> tuple[list[tuple[float, _Texts]], list[tuple[str, _Texts]]]:
    """Words of an entry with their weights, and the words of each column's name and description."""
    checks = " ".join(f"{check.name} {check.description}" for check in entry.checks)
    tags = [f"{name} {value}" for name, value in entry.tags.items()]
    tags += [tag for column in entry.columns for tag in column.tags]
    terms = [*entry.terms, *entry.words, *(term for column in entry.columns for term in column.terms)]
    fields = {
        "name": entry.title,
        "term": " ".join(terms),
        "tag": " ".join(tags),
        "owner": entry.owner,
        "description": entry.description,
        "other": " ".join((entry.kind, checks, *entry.rules, *entry.facts.values())),
    }
    columns: list[tuple[str, _Texts]] = [
        (column.name, (_words_once(column.name), _words_once(column.description))) for column in entry.columns
    ]
    return [(WEIGHTS[name], (_words_once(text),)) for name, text in fields.items()], columns


def _distance(left: str, right: str, most: int) -> int:
    """Letters that are wrong, missing, too many, or swapped with the next one; `most` + 1 for more than `most`."""
    before, row = [0] * (len(right) + 1), list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        older, before, row = before, row, [i] + [0] * len(right)
        for j, b in enumerate(right, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                row[j] = min(row[j], older[j - 2] + 1)
        if min(row) > most:
            return most + 1
    return row[-1]
