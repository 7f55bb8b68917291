"""Names of catalogue objects, on which privileges are granted, and what contains what.

| text | object | within |
| --- | --- | --- |
| `platform` | everything | |
| `namespace:risk` | a team's share of it | `platform` |
| `raw` (or `schema:raw`) | a schema | its namespace, else `platform` |
| `raw.flights` | a table, or a feature view (`features.carrier_reliability`) | its schema |
| `raw.flights.tail_number` | a column | its table |
| `model:flight_delay` | a model | its namespace, else `platform` |
| `endpoint:flight_delay`, `training_set:flight_delay` | of that model | the model |
| `tag:pii` | all columns with that tag | `platform` |

Serving imports this: standard library and msgspec only.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

import msgspec

TYPED: Final = ("model", "endpoint", "training_set", "tag", "namespace")  # kinds whose texts are `<kind>:<name>`
DATA: Final = ("schema", "table", "column")
_NAME = re.compile(r"[A-Za-z0-9_][\w./-]{0,199}", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"]|"")+)"|`((?:[^`]|``)+)`|([^."`]+)')
_EXAMPLES = "raw, raw.flights, raw.flights.tail_number, model:flight_delay, tag:pii, namespace:risk, platform"


class NoObject(ValueError):
    """A text that is no name of a catalogue object, or names one that does not exist."""


class CatalogueObject(msgspec.Struct, frozen=True):
    """An object of the catalogue by its kind and the parts of its name.

    Examples
    --------
    >>> parse_object("raw.flights.tail_number").text, parse_object("raw.flights").lake_table
    ('raw.flights.tail_number', 'raw/flights')
    >>> [container.text for container in parse_object("raw.flights.tail_number").containers]
    ['raw.flights', 'raw', 'platform']
    """

    kind: str  # platform, schema, table, column, or one of TYPED
    parts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The name that grants are kept under: equal for equal objects."""
        if self.kind == "platform":
            return "platform"
        if self.kind in TYPED:
            return f"{self.kind}:{self.parts[0]}"
        text = ".".join(_shown(part) for part in self.parts)
        return f"schema:{text}" if self.kind == "schema" and text == "platform" else text

    @property
    def lake_table(self) -> str | None:
        """The lake's name of a table, or of a column's table: `raw/flights`."""
        return "/".join(self.parts[:2]) if self.kind in ("table", "column") else None

    @property
    def container(self) -> "CatalogueObject | None":
        """What contains the object, namespaces aside; None for the platform."""
        if self.kind == "platform":
            return None
        if self.kind in ("endpoint", "training_set"):
            return CatalogueObject("model", self.parts)
        if self.kind == "column":
            return CatalogueObject("table", self.parts[:2])
        return CatalogueObject("schema", self.parts[:1]) if self.kind == "table" else CatalogueObject("platform")

    @property
    def containers(self) -> list["CatalogueObject"]:
        """All that contain it, the nearest first, namespaces aside."""
        outer = self.container
        return [] if outer is None else [outer, *outer.containers]


def parse_object(text: str) -> CatalogueObject:
    """Read the name of a catalogue object.

    Parts with dots or blanks are quoted as in SQL: `raw.flights."tail.number"`. The lake's own way to write tables,
    `raw/flights`, is read too. Letters of schemas, tables and columns count in lower case, as in SQL and in Delta.

    Raises
    ------
    NoObject
        When it is none.

    Examples
    --------
    >>> parse_object("model:flight_delay")
    CatalogueObject(kind='model', parts=('flight_delay',))
    >>> parse_object("moddel:rent")
    Traceback (most recent call last):
    ml_platform.governance.access.objects.NoObject: 'moddel:rent' is no name of an object: did you mean model:rent?
    """
    text = text.strip()
    kind, colon, name = text.partition(":")
    if text in ("platform", "*"):
        return CatalogueObject("platform")
    if colon and kind in TYPED:
        if _NAME.fullmatch(name) is None:
            raise NoObject(f"{text!r} is no name of an object: wanted letters, digits, _, -, . and / after {kind}:")
        return CatalogueObject(kind, (name,))
    if colon and kind not in ("schema", "table", "column", "view") and '"' not in kind and "`" not in kind:
        near = get_close_matches(kind, (*TYPED, "schema", "table", "view", "column"), n=1)
        hint = f"did you mean {near[0]}:{name}?" if near else f"wanted one like {_EXAMPLES}"
        raise NoObject(f"{text!r} is no name of an object: {hint}")
    parts = _parts(name if colon and kind in ("schema", "table", "column", "view") else text)
    if not 1 <= len(parts) <= 3:
        raise NoObject(f"{text!r} is no name of an object: wanted one like {_EXAMPLES}")
    wanted = {"schema": 1, "table": 2, "view": 2, "column": 3}.get(kind if colon else "", len(parts))
    if kind == "view" and colon and len(parts) == 1:
        parts = ("features", *parts)
    if len(parts) != wanted:
        raise NoObject(f"{text!r} is no name of a {kind}: it has {len(parts)} parts, wanted {wanted}")
    return CatalogueObject(DATA[len(parts) - 1], parts)


def table_object(table: str) -> CatalogueObject:
    """The object of a table under the lake's name.

    Examples
    --------
    >>> table_object("quarantine/raw/flights").text
    'quarantine.raw/flights'
    """
    schema, _, name = table.partition("/")
    return CatalogueObject("table", (schema.lower(), name.lower()))


def column_object(table: str, column: str) -> CatalogueObject:
    """The object of a column of a table under the lake's name."""
    return CatalogueObject("column", (*table_object(table).parts, column.lower()))


def check_exists(wanted: CatalogueObject, existing: Iterable[str]) -> None:
    """Refuse an object that is not among those that exist, by their texts, and name the nearest (raises NoObject).

    Examples
    --------
    >>> check_exists(parse_object("raw.flight"), ["raw", "raw.flights", "raw.weather"])
    Traceback (most recent call last):
    ml_platform.governance.access.objects.NoObject: there is no raw.flight; did you mean raw.flights?
    """
    known = set(existing)
    if wanted.kind == "platform" or wanted.text in known:
        return
    near = get_close_matches(wanted.text, sorted(known), n=1, cutoff=0.5)
    same = sorted(text for text in known if _kind(text) == wanted.kind)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(same[:10]) or 'none of that kind'}"
    raise NoObject(f"there is no {wanted.text}; {hint}")


def _kind(text: str) -> str:
    return parse_object(text).kind


def _parts(text: str) -> tuple[str, ...]:
    """Parts of a dotted name, quoted ones as they stand; a slash splits where nothing is quoted and nothing dotted."""
    parts: list[str] = []
    place = 0
    while place < len(text):
        match = _QUOTED.match(text, place)
        if match is None or (match.end() < len(text) and text[match.end()] != "."):
            raise NoObject(f"{text!r} is no name of an object: a dot or quote is missing or too much")
        if match[3] is not None and match[3] != match[3].strip():
            raise NoObject(f"{text!r} is no name of an object: blanks beside a dot")
        quoted = match[1].replace('""', '"') if match[1] is not None else match[2] and match[2].replace("``", "`")
        parts.append(str(quoted or match[3]).lower())
        place = match.end() + 1
    if not parts or text.endswith("."):
        raise NoObject(f"{text!r} is no name of an object: wanted one like {_EXAMPLES}")
    if len(parts) == 1 and "/" in parts[0] and '"' not in text and "`" not in text:
        schema, _, name = parts[0].partition("/")
        parts = [schema, name]
    if bad := [part for part in parts[:2] if _NAME.fullmatch(part) is None]:
        raise NoObject(f"{text!r} is no name of an object: found {bad[0]!r}, wanted one like {_EXAMPLES}")
    return tuple(parts)


def _shown(part: str) -> str:
    plain = re.fullmatch(r"[\w/-]+", part) is not None
    return part if plain else '"' + part.replace('"', '""') + '"'
