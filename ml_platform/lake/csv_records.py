"""Cuts CSV text into records, strictly: a text that could be read in two ways is refused, with the line and the remedy.

Readers of CSV are lenient: a quote in an unquoted value, or text after a closing quote, makes them join lines without a
word. Here a quote opens a value only at its beginning and closes it only at its end (RFC 4180), every record has as
many fields as the first, and a dialect that differs is declared (`Files`). Records leave in the one form that Polars
reads rightly, with their number, so that the reader can count them again.

The work is done on arrays of positions, a block at a time, so memory does not grow with the file.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ml_platform.lake.csv_structure import CR, LF, PLAIN, SEPARATORS, Alphabet, Bytes, Marks, Mask, Misplaced, Places
from ml_platform.lake.file_spec import Files

LONGEST_RECORD = 64 * 1024 * 1024  # bytes; a longer one has a quote that is never closed


class MalformedCsv(ValueError):
    """A CSV text that cannot be read in only one way; the message begins with the line."""


@dataclass(frozen=True)
class Block:
    """Whole records in RFC 4180 form, without comments and blank lines.

    Attributes
    ----------
    text
        UTF-8.
    rows
        Number of records.
    columns
        Number of fields of each record.
    line
        Line of the file in which the block begins, from 1.
    """

    text: bytes
    rows: int
    columns: int
    line: int


def cut_into_blocks(chunks: Iterable[bytes], files: Files, *, longest: int = LONGEST_RECORD) -> Iterator[Block]:
    """Cut UTF-8 text, given in chunks of any size, into blocks of whole records; the header is the first record.

    Parameters
    ----------
    longest
        Most bytes of one record.

    Raises
    ------
    MalformedCsv
        If the text is not in the declared dialect, or could be read in two ways.

    Examples
    --------
    >>> blocks = cut_into_blocks([b'id,v\\n\\n1,"a', b'\\nb"\\n'], Files())
    >>> [(block.text, block.rows) for block in blocks]
    [(b'id,v\\n', 1), (b'1,"a\\nb"\\n', 1)]
    >>> list(cut_into_blocks([b'id,v\\n1,5" pipe\\n'], Files()))
    Traceback (most recent call last):
    ...
    ml_platform.lake.csv_records.MalformedCsv: line 2 has a quote within a value: put the value in quotes and write \
the quote twice ("5"" pipe"), say escape: if another character marks such quotes, or quote: none if they mean nothing
    """
    cutter = _Cutter(files)
    rest = b""
    for chunk in chunks:
        rest += chunk
        if (block := cutter.cut(rest, is_last=False)) is not None:
            yield block
        rest = rest[cutter.used :]
        if len(rest) > longest:
            raise MalformedCsv(
                f"line {cutter.line} begins a record of more than {longest} bytes: a quote there may not be closed"
            )
    if rest and (block := cutter.cut(rest, is_last=True)) is not None:
        yield block


@dataclass(frozen=True)
class _Records:
    """Records of a text: where each begins and ends (before its line end), and how many fields it has."""

    starts: Places
    ends: Places
    fields: Places

    def only(self, chosen: Mask) -> "_Records":
        return _Records(self.starts[chosen], self.ends[chosen], self.fields[chosen])


class _Cutter:
    """What is known of a file so far: its width, its line ends, and the line that comes next."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.line = 1
        self.used = 0  # bytes of the last text that need not be given again
        self.columns: int | None = None
        self._alphabet: Alphabet | None = None
        self._to_skip = files.skip_lines

    def cut(self, text: bytes, *, is_last: bool) -> Block | None:
        """Make a block of the whole records in a text; sets `used`, and `line` to that of the next record."""
        self.used = 0
        alphabet = self._alphabet or self._learn_line_end(text, is_last)
        if alphabet is None or not self._skip_lines(text, alphabet, is_last):
            return None
        raw = np.frombuffer(text, np.uint8)[self.used :]
        trimmed = raw
        try:
            if self.files.trim:
                trimmed = _trimmed(raw, alphabet, is_last)
            block, length = self._block(trimmed, alphabet, is_last)
        except Misplaced as error:
            self._refuse(self.line + _lines(trimmed[: error.place], alphabet), str(error))
        self.used += length if trimmed is raw else _length_of(raw, trimmed[:length], alphabet)
        return block

    def _learn_line_end(self, text: bytes, is_last: bool) -> Alphabet | None:
        """Find out, by the first one outside of quotes, how lines end; None if there is none yet."""
        alphabet = Alphabet.of(self.files, LF)
        is_free = bool(self.files.skip_lines) or text.startswith(alphabet.comment or b"\0")  # quotes mean nothing
        for found in re.finditer(rb"\r?\n|\r", text):
            if found.end() == len(text) and not is_last:
                return None
            before, _ = alphabet.without_escapes(np.frombuffer(text, np.uint8)[: found.start()])
            if is_free or np.count_nonzero(before == alphabet.quote) % 2 == 0:
                self._alphabet = Alphabet.of(self.files, CR if found.group() == b"\r" else LF)
                break
        else:
            self._alphabet = alphabet if is_last else None
        return self._alphabet

    def _skip_lines(self, text: bytes, alphabet: Alphabet, is_last: bool) -> bool:
        """Leave out the lines above the header; False if there are more of them than the text has."""
        end = bytes([alphabet.end])
        first = text.partition(end)[0].strip(b'\r"')
        if self.line == 1 and not self._to_skip and first.lower().startswith(b"sep="):  # as Excel writes
            if first[4:] != self.files.separator.encode():
                self._refuse(1, f"says '{first.decode()}': say separator: {first[4:].decode()!r}")
            self._to_skip = 1
        while self._to_skip:
            after = text.find(end, self.used) + 1
            if not after:
                self.used = len(text) if is_last else self.used
                return False
            self.used, self.line, self._to_skip = after, self.line + 1, self._to_skip - 1
        return True

    def _block(self, raw: Bytes, alphabet: Alphabet, is_last: bool) -> tuple[Block | None, int]:
        """Make a block of the text's whole records; also their length."""
        if (nul := np.flatnonzero(raw == 0)).size:
            raise Misplaced(nul[0], "has a NUL byte: it may be in utf-16 (say encoding: utf-16), or damaged")
        work, escapes = alphabet.without_escapes(raw)
        work, comments = alphabet.without_comments(work, escapes)
        alphabet.check_escapes(raw, escapes, is_last)
        marks = alphabet.marks(work)
        alphabet.check_quotes(work, marks, is_last)
        alphabet.check_line_ends(work, marks, is_last)
        ends, separators = marks.outside(alphabet.end), marks.outside(alphabet.separator)
        if is_last and len(raw) > (ends[-1] + 1 if len(ends) else 0):
            ends = np.append(ends, len(raw))
        if not len(ends):
            return None, 0
        length = min(int(ends[-1]) + 1, len(raw))
        starts = np.concatenate([[0], ends[:-1] + 1])
        bodies = ends - ((ends > starts) & (work[np.maximum(ends - 1, 0)] == CR))
        fields = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
        ends_in_separator = np.isin(bodies - 1, separators) & (bodies > starts)
        if self.files.trailing_separator:
            fields = fields - ends_in_separator
        every = _Records(starts, bodies, fields)
        is_comment = np.isin(starts, comments) if comments else np.zeros(len(starts), np.bool_)
        is_left_out = is_comment | self._blank(work, every, is_comment)
        records = every.only(~is_left_out)
        keep = np.ones(length, np.bool_)
        for place in np.flatnonzero(is_left_out):
            keep[starts[place] : ends[place] + 1] = False
        if self.files.trailing_separator:
            keep[bodies[ends_in_separator & ~is_left_out] - 1] = False
        self._check_fields(records, separators)
        line, self.line = self.line, self.line + _lines(raw[:length], alphabet)
        if not len(records.starts):
            return None, length
        text = _written(raw[:length], keep, escapes, marks, alphabet, missing=self._missing(records))
        return Block(text, len(records.starts), self.columns or 0, line), length

    def _blank(self, work: Bytes, records: _Records, is_comment: Mask) -> Mask:
        """Say which records are blank lines, and no rows; learns the number of columns from the first other one."""
        is_empty: Mask = records.ends == records.starts
        is_blank, is_above = is_empty.copy(), np.zeros(len(is_empty), np.bool_)

        def has_only_blanks(place: int) -> bool:
            start, end = records.starts[place], records.ends[place]
            return records.fields[place] <= 1 and not work[start:end].tobytes().strip(b" \t")

        if self.columns is None:
            lines = np.flatnonzero(~is_empty & ~is_comment)
            first = next((place for place in lines.tolist() if not has_only_blanks(place)), None)
            is_above[:first] = self.files.header == "first_line"
            if self.files.names is not None:
                self.columns = len(self.files.names)
            elif first is not None:
                self.columns = int(records.fields[first])
                self._check_separator(work, records, first)
        if self.columns == 1:
            is_blank[is_above & ~is_comment] = True
        else:
            for place in np.flatnonzero((records.fields <= 1) & ~is_empty & ~is_comment).tolist():
                is_blank[place] = has_only_blanks(place)
        if self.columns != 1:
            return is_blank
        # Above the header a blank line is nothing; below it, in a file of one column, it may be a missing value.
        below = np.flatnonzero(is_empty & ~is_above & ~is_comment)
        if below.size and self.files.missing_fields == "refuse":
            raise Misplaced(
                records.starts[below[0]],
                "is blank, which in a file of one column may be a missing value or nothing: remove the line, or say "
                "missing_fields: null if it is a row",
            )
        return is_blank & is_above

    def _check_separator(self, work: Bytes, records: _Records, header: int) -> None:
        """Refuse a header of one column that another separator would part."""
        place, text = records.starts[header], work[records.starts[header] : records.ends[header]].tobytes().decode()
        other = next((one for one in SEPARATORS if one != self.files.separator and one in text), None)
        if self.columns == 1 and self.files.header == "first_line" and other is not None:
            raise Misplaced(
                place,
                f"is a header of one column, '{text}': say separator: {json.dumps(other)} if that parts its columns, "
                "or give names: if it is one",
            )

    def _check_fields(self, records: _Records, separators: Places) -> None:
        """Refuse a record that has not as many fields as the header."""
        columns, fields = self.columns or 0, records.fields
        wrong = np.flatnonzero(fields != columns if self.files.missing_fields == "refuse" else fields > columns)
        if not wrong.size:
            return
        place, found = records.starts[wrong[0]], int(fields[wrong[0]])
        header = "the header has" if self.files.names is None else "names has"
        said = f"has {found} field{'' if found == 1 else 's'}, {header} {columns}"
        if found < columns:
            remedy = "the file may have been cut off; say missing_fields: null if last fields may be left out"
        elif found == columns + 1 and records.ends[wrong[0]] - 1 in separators:
            remedy = "it ends in a separator; say trailing_separator: true if each line does"
        else:
            remedy = f"put a value with {self.files.separator!r} in quotes"
            if columns == 1:
                remedy += ", or say skip_lines: if the lines above the header are no rows"
        raise Misplaced(place, f"{said}: {remedy}")

    def _missing(self, records: _Records) -> Places:
        """Where separators are missing, once for each field that a record lacks."""
        lacking = np.maximum((self.columns or 0) - records.fields, 0)
        return np.repeat(records.ends, lacking) if self.columns != 1 else np.zeros(0, np.intp)

    def _refuse(self, line: int, problem: str) -> NoReturn:
        raise MalformedCsv(f"line {line} {problem}")


def _written(raw: Bytes, keep: Mask, escapes: Places, marks: Marks, alphabet: Alphabet, *, missing: Places) -> bytes:
    """Write records in RFC 4180 form."""
    if alphabet.end == CR:
        raw = raw.copy()
        ends = marks.outside(CR)
        raw[ends[ends < len(raw)]] = LF
    escapes = escapes[escapes < len(raw)]
    around = np.zeros(0, np.intp)
    if escapes.size and alphabet.quote is not None:
        is_quote = raw[escapes + 1] == alphabet.quote
        # A value without quotes that has escapes gets quotes around it.
        bounds = marks.places[~marks.is_open & (marks.bytes != alphabet.quote) & (marks.places < len(raw))]
        of_values = np.unique(np.searchsorted(bounds, escapes))
        begins, ends = np.concatenate([[0], bounds + 1])[of_values], np.append(bounds, len(raw))[of_values]
        ends = ends - ((raw[ends - 1] == CR) & ~np.isin(ends - 2, escapes))
        bare = raw[begins] != alphabet.quote
        around = np.concatenate([begins[bare], ends[bare]])
        raw = raw.copy()
        raw[escapes[is_quote]] = alphabet.quote
        keep[escapes[~is_quote]] = False
    at = np.concatenate([around, missing])
    if at.size:
        added = np.concatenate([np.full(len(around), alphabet.quote or 0), np.full(len(missing), alphabet.separator)])
        raw, keep = np.insert(raw, at, added), np.insert(keep, at, True)
    return (raw if keep.all() else raw[keep]).tobytes()


def _trimmed(raw: Bytes, alphabet: Alphabet, is_last: bool) -> Bytes:
    """Leave out the blanks beside separators and line ends."""
    work, _ = alphabet.without_comments(*alphabet.without_escapes(raw))
    blanks = np.flatnonzero((work == ord(" ")) | ((work == ord("\t")) & (alphabet.separator != ord("\t"))))
    if not blanks.size:
        return raw
    new_run = np.concatenate([[True], np.diff(blanks) > 1])
    first, last = blanks[new_run], blanks[np.append(new_run[1:], True)]
    beside = np.concatenate([[LF], work, [LF if is_last else PLAIN]])
    bounds = [alphabet.separator, LF, CR]
    at_bound = np.isin(beside[first], bounds) | np.isin(beside[last + 2], bounds)
    at_bound &= ~alphabet.marks(work).opened_before(first)
    keep = np.ones(len(raw), np.bool_)
    keep[blanks[at_bound[np.cumsum(new_run) - 1]]] = False
    trimmed: Bytes = raw[keep]
    return trimmed


def _length_of(raw: Bytes, records: Bytes, alphabet: Alphabet) -> int:
    """Length of some records before they were trimmed: up to as many line ends."""
    if not len(records):
        return 0
    if records[-1] != alphabet.end:
        return len(raw)
    return int(np.flatnonzero(raw == alphabet.end)[_lines(records, alphabet) - 1]) + 1


def _lines(text: Bytes, alphabet: Alphabet) -> int:
    return int(np.count_nonzero(text == alphabet.end))
