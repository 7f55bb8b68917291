"""Guesses how a CSV file is written: encoding, separator, header, and the lines around its rows that are none.

A guess is taken only if the strict reader reads the whole file by it. What somebody should look at is said in notes.
"""

import codecs
import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.lake.names import is_selector
from ml_platform.lake.sources import csv_reader
from ml_platform.lake.sources.contract_inference import read_numbers, read_texts
from ml_platform.lake.sources.csv_reader import read_csv, read_start
from ml_platform.lake.sources.csv_records import MalformedCsv
from ml_platform.lake.sources.file_contents import encoding_of, what_else
from ml_platform.lake.sources.file_readers import file_format
from ml_platform.lake.sources.file_spec import Files

_YEAR = r"(?:19|20)\d\d"
_SEPARATORS = "\t;|,"  # the rarer in texts, the earlier
_TOP = {"skip_lines": 0, "skip_last_lines": 0}
_VARIANTS: tuple[dict[str, Any], ...] = ({}, {"trailing_separator": True}, {"trim": True}, {"escape": "\\"})
_ENOUGH = 0.3  # share of lines with as many separators, among titles and texts of several lines
_MOST_LINES = 1000  # that are looked at
_MOST_AROUND = 10  # lines above the header, or below the last row
_TOTAL = re.compile(
    r"(grand |sub)?(total|sum|summe|gesamt|gesamtsumme|insgesamt|somme|totale|suma)s?\b:?", re.IGNORECASE
)


@dataclass(frozen=True)
class Dialect:
    """How a file is written, as was guessed, and what somebody should look at."""

    files: Files
    notes: tuple[str, ...] = ()


def guess_files(path: Path | str) -> Files:
    """Guess how a file is written, as `guess_dialect` does, without notes."""
    return guess_dialect(path).files


def guess_dialect(path: Path | str) -> Dialect:
    """Guess how a file is written; of files other than CSV nothing is to be guessed.

    Raises
    ------
    ValueError
        If no such way reads the file; with the line that the likeliest one cannot read, or what the file is instead.
    """
    if file_format(path, Files()) != "csv":
        return Dialect(Files())
    start = read_start(path)
    if (other := what_else(start)) is not None:
        raise ValueError(f"{path} cannot be read as csv: it is {other}.")
    encoding, text = _decoded(start)
    text = text.removeprefix("\ufeff")
    plain, around = _plain(text, encoding, is_whole=len(start) < csv_reader.CHUNK)
    files, lines = _first_that_reads(path, plain)
    notes = [*_of_encoding(encoding, text), *around]
    if lines.is_empty():
        return Dialect(files, tuple(notes))
    if files.names is not None:  # the header lacks one
        return Dialect(files, (*notes, "The header lacks the first column's name: row_name was added to names."))
    first = lines.row(0)
    seen = {
        "trim": any(name != name.strip() for name in first if name),
        "trailing_separator": len(first) > 1 and lines.to_series(-1).null_count() == lines.height,
    }
    if any(seen.values()) and not files.trim:
        files = files.model_copy(update=seen)
        lines = _lines(path, files)
    if _is_data(lines.row(0), lines[1:]):
        if files.skip_lines:  # what is above is no title: the file is broken
            raise ValueError(f"{path} cannot be read as csv: {_problem_of(path, files.model_copy(update=_TOP))}.")
        return Dialect(files.model_copy(update={"header": "none", "names": tuple(lines.columns)}), tuple(notes))
    files, of_names = _with_names(files, lines.row(0), lines[1:])
    files, of_total = _without_total(files, lines[1:])
    return Dialect(files, (*notes, *of_names, *of_total))


def _decoded(start: bytes) -> tuple[str, str]:
    """Guess the encoding of a file's first bytes, and decode them."""
    if (encoding := encoding_of(start)) not in (None, "utf-8"):
        return str(encoding), start[: len(start) // 4 * 4].decode(str(encoding), errors="replace")
    try:
        return "utf-8", codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "cp1252", start.decode("cp1252", errors="replace")


def _of_encoding(encoding: str, text: str) -> Iterator[str]:
    if encoding == "cp1252":
        words = dict.fromkeys(re.findall(r"[^\s,;|]*[^\x00-\x7f][^\s,;|]*", text))
        shown = ", ".join(list(words)[:5])[:80]
        yield f"It is not in UTF-8, and cp1252 was guessed. If this reads wrongly, say another encoding: {shown}"


def _plain(text: str, encoding: str, *, is_whole: bool) -> tuple[Files, list[str]]:
    """Guess the separator, and the lines above and below the rows, from how many separators the lines have."""
    lines = re.split("\r\n|\n|\r", text)
    ends_in_line = not lines[-1].strip()
    is_whole = is_whole and len(lines) <= _MOST_LINES
    lines = lines if is_whole else lines[: min(len(lines) - 1, _MOST_LINES)]
    separator_line = re.fullmatch('"?sep=(.)"?', lines[0] if lines else "", re.IGNORECASE)
    if separator_line:
        return Files(encoding=encoding, separator=separator_line.group(1)), []
    bare = [re.sub('"[^"]*"', "", line) for line in lines]
    filled = [place for place, line in enumerate(lines) if line.strip()]
    if not filled:
        return Files(encoding=encoding), []
    separator, usual = _separator(bare, filled, lines[filled[0]])
    options: dict[str, Any] = {"separator": separator}
    notes = []
    counts = {place: bare[place].count(separator) for place in filled}
    header = next(place for place in filled if counts[place] >= usual)
    while _is_title(lines, header, separator) and header - filled[0] < _MOST_AROUND:
        header = next(place for place in filled if place > header)
    above = [lines[place] for place in filled if place < header]
    if above and len(above) <= _MOST_AROUND and not _lacks_a_name(lines, header, above, separator, usual):
        options["skip_lines"] = header
        notes.append(f"Lines above the header are left out: {_shown(above)}")
    elif above and len(above) == 1:
        options["names"] = ("row_name", *next(csv.reader(above, delimiter=separator)))
    below = [place for place in reversed(filled) if place > header]
    footer = next((number for number, place in enumerate(below) if counts[place] >= usual), 0)
    if 0 < footer <= _MOST_AROUND and is_whole and ends_in_line and usual:
        options["skip_last_lines"] = footer
        notes.append(f"The last lines are left out: {_shown([lines[place] for place in reversed(below[:footer])])}")
    if usual and any(lines[place] == separator * usual for place in filled):
        options["empty_rows"] = "drop"
        notes.append("Lines of separators alone are left out, as Excel writes them for rows without values.")
    return Files(encoding=encoding).model_copy(update=options), notes


def _separator(bare: Sequence[str], filled: Sequence[int], first: str) -> tuple[str, int]:
    """Guess the separator, and how many of them most lines have, from lines without what is in quotes."""
    if re.fullmatch('"[^"]*"( "[^"]*")+', first):
        return " ", Counter(bare[place].count(" ") for place in filled).most_common(1)[0][0]
    usual: dict[str, int] = {}
    share: dict[str, float] = {}
    for one in _SEPARATORS:
        counts = Counter(count for place in filled if (count := bare[place].count(one)))
        usual[one], times = counts.most_common(1)[0] if counts else (0, 0)
        share[one] = times / len(filled)
    everywhere = next((one for one in _SEPARATORS if share[one] == 1), None)
    of_header = max(",;\t|", key=bare[filled[0]].count)
    if everywhere is not None:
        return everywhere, usual[everywhere]
    if bare[filled[0]].count(of_header) and not any(share[one] > share[of_header] for one in _SEPARATORS):
        return of_header, usual[of_header]
    best = max(_SEPARATORS, key=lambda one: (share[one], usual[one]))
    return (best, usual[best]) if share[best] >= _ENOUGH else (of_header, 0)


def _is_title(lines: Sequence[str], place: int, separator: str) -> bool:
    """Whether a line has a text in its first cell alone, where soon one has more of them."""
    if lines[place].count(separator) < 2 or _is_filled(lines[place], separator):
        return False
    rest = [line for line in lines[place + 1 :] if line.strip()]
    return any(_is_filled(line, separator) for line in rest[:_MOST_AROUND])


def _is_filled(line: str, separator: str) -> bool:
    """Whether a line has a text in another cell than the first."""
    return bool(line.partition(separator)[2].strip(f'{separator} "'))


def _lacks_a_name(lines: Sequence[str], header: int, above: Sequence[str], separator: str, usual: int) -> bool:
    """Whether the line above the first full one is a header without the name of the rows' names, as R writes it."""
    if len(above) != 1 or re.sub('"[^"]*"', "", above[0]).count(separator) != usual - 1:
        return False
    rows = list(csv.reader((line for line in lines[header:] if line.strip()), delimiter=separator))
    width = len(rows[0])
    below = pl.DataFrame(
        [row for row in rows[1:] if len(row) == width], schema=[str(x) for x in range(width)], orient="row"
    )
    return bool(below.height) and _is_data(tuple(rows[0][1:]), below[:, 1:])


def _shown(lines: Sequence[str]) -> str:
    text = " / ".join(" ".join(line.split()) for line in lines)
    return text if len(text) <= 160 else f"{text[:160]}…"


def _first_that_reads(path: Path | str, plain: Files) -> tuple[Files, pl.DataFrame]:
    problem = None
    for variant in _VARIANTS:
        files = plain.model_copy(update=variant)
        try:
            return files, _lines(path, files) if files.names is None else read_csv(path, files)
        except MalformedCsv as error:
            problem = problem or error
    raise ValueError(f"{path} cannot be read as csv: {_problem_of(path, plain) or problem}.") from problem


def _problem_of(path: Path | str, files: Files) -> MalformedCsv | None:
    """What the reader says of a file as a table declares it, with its header."""
    try:
        read_csv(path, files)
    except MalformedCsv as error:
        return error
    return None


def _lines(path: Path | str, files: Files) -> pl.DataFrame:
    """Read all records of a file, its header being one of them."""
    return read_csv(path, files.model_copy(update={"header": "none"}))


def _is_data(first: tuple[str | None, ...], below: pl.DataFrame) -> bool:
    """Whether the first line looks like a row: where the rows below have numbers or dates, it has one too."""
    is_data = False
    for text, values in zip(first, below.iter_columns(), strict=True):
        kind = read_texts(values)["type"]
        if kind == "string" or text is None:
            continue
        may_be_year = re.fullmatch(_YEAR, text) and not values.str.contains(f"^{_YEAR}$").all()  # "country,2019,2020"
        if may_be_year or read_texts(pl.concat([values, pl.Series([text])]))["type"] == "string":
            return False
        is_data = True
    return is_data


def _with_names(files: Files, header: tuple[str | None, ...], below: pl.DataFrame) -> tuple[Files, list[str]]:
    """Name the columns whose names are missing, not told apart by tables, or mean several columns."""
    names = ["" if name is None or is_selector(name) else name for name in header]
    same = Counter(name.strip().casefold() for name in names if name)
    again = [place for place, name in enumerate(names) if name and same[name.strip().casefold()] > 1]
    nameless = [place for place, name in enumerate(names) if not name]
    if len(nameless) == 1 and (nameless == [0] or not below.to_series(nameless[0]).count()):
        values = below.to_series(nameless[0])
        if not values.count() or counts_rows(values):
            nameless = []  # a table leaves it out
    if not again and not nameless:
        return files, []
    of_header = {name.strip().casefold() for name in names}
    given: set[str] = set()
    for place in sorted([*again, *nameless]):
        name = names[place].strip() or f"column_{place + 1}"
        while name.casefold() in given or (place in nameless and name.casefold() in of_header):
            name = f"{name}_{place + 1}"
        given.add(name.casefold())
        names[place] = name
    named = ", ".join(names[place] for place in sorted([*again, *nameless]))
    note = (
        "Names are missing in the header, the same but for case and blanks, or * and ^…$, which no column can have; "
        f"names lists all: {_shown([named])}"
    )
    return files.model_copy(update={"names": tuple(names)}), [note]


def counts_rows(values: pl.Series) -> bool:
    """Whether texts or integers are the numbers of the rows, from 0 or 1: an index, as pandas and R write it."""
    numbers = values.cast(pl.Int64, strict=False)
    if numbers.null_count() or not len(numbers) or numbers[0] not in (0, 1):
        return False
    return bool((numbers.diff().drop_nulls() == 1).all())


def _without_total(files: Files, rows: pl.DataFrame) -> tuple[Files, list[str]]:
    """Leave out a last row that is a total by its name and its numbers; say where there may be one.

    It is one where its label stands among numbers or dates, or where its numbers are the sums of those above.
    """
    if rows.height < 2:
        return files, []
    last = rows.row(-1)
    place = next((place for place, text in enumerate(last) if text), None)
    without = files.model_copy(update={"skip_last_lines": files.skip_last_lines + 1})
    remedy = f"say skip_last_lines: {without.skip_last_lines} beside its path. Found: "
    shown = _shown([", ".join(text or "" for text in last)])
    if place is None or not _TOTAL.match(last[place]):
        is_odd = last[0] is None and rows.height > 2 and not rows.to_series(0)[:-1].null_count()
        note = f"The last line alone has no value in its first column: if it is a total, {remedy}{shown}"
        return files, [note] if is_odd else []
    if read_texts(rows.to_series(place)[:-1])["type"] != "string" or _has_sums(rows, place):
        return without, [f"The last line looks like a total and is left out: {shown}"]
    return files, [f"The last line looks like a total and is kept as a row; if it is a total, {remedy}{shown}"]


def _has_sums(rows: pl.DataFrame, label: int) -> bool:
    """Whether the last row has a total's label, and beside it nothing but sums of two values or more, not all 0."""
    last = rows.row(-1)
    if _TOTAL.fullmatch(last[label].strip()) is None:
        return False
    sums = []
    for place, (text, values) in enumerate(zip(last, rows.iter_columns(), strict=True)):
        if place == label or text is None:
            continue
        column = read_texts(values[:-1])
        if column["type"] not in ("integer", "number"):
            return False
        *above, total = read_numbers(values, column)
        known = [value for value in above if value is not None]
        if total is None or len(known) < 2 or not math.isclose(math.fsum(known), total, rel_tol=1e-9):
            return False
        sums.append(total)
    return any(sums)
