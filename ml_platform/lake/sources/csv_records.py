"""Cuts CSV text into records, strictly: a text that could be read in two ways is refused, with the line and the remedy.

Readers of CSV are lenient: a quote in an unquoted value, or text after a closing quote, makes them join lines without a
word. Here a quote opens a value only at its beginning and closes it only at its end (RFC 4180), every record has as
many fields as the first, and a dialect that differs is declared (`Files`). Records leave in the one form that Polars
reads rightly, with their number, so that the reader can count them again.

The work is done on arrays of positions, a block at a time, so memory does not grow with the file.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ml_platform.lake.sources.csv_structure import CR, LF, SEPARATORS, Alphabet, Bytes, Mask, Misplaced, Places
from ml_platform.lake.sources.csv_writing import count_lines, length_of, trimmed, written
from ml_platform.lake.sources.file_spec import Files

LONGEST_RECORD = 64 * 1024 * 1024  # bytes; a longer one has a quote that is never closed
_MOST_AROUND = 10  # lines that are taken for a footer
_MOST_SHOWN = 80  # characters of a text in a message


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
    ml_platform.lake.sources.csv_records.MalformedCsv: line 2 has a quote within a value: put the value in quotes and \
write the quote twice ("5"" pipe"), \
say escape: if another character marks such quotes, or quote: none if they mean nothing
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
                f"line {cutter.line} begins a record of more than {longest} bytes: a quote there may not be closed, or "
                "it is no CSV"
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
        self._surplus = 0  # separators at the end of a line that part nothing; 0 until the first record is known
        self._made = 0  # records
        self._alphabet: Alphabet | None = None
        self._to_skip = files.skip_lines

    def cut(self, text: bytes, *, is_last: bool) -> Block | None:
        """Make a block of the whole records in a text; sets `used`, and `line` to that of the next record."""
        self.used = 0
        alphabet = self._alphabet or self._learn_line_end(text, is_last)
        if alphabet is None or not self._skip_lines(text, alphabet, is_last):
            return None
        raw = np.frombuffer(text, np.uint8)[self.used :]
        without = raw
        try:
            if self.files.trim:
                without = trimmed(raw, alphabet, is_last)
            block, length = self._block(without, alphabet, is_last)
        except Misplaced as error:
            self._refuse(self.line + count_lines(without[: error.place], alphabet), str(error))
        self.used += length if without is raw else length_of(raw, without[:length], alphabet)
        return block

    def _learn_line_end(self, text: bytes, is_last: bool) -> Alphabet | None:
        """Find out, by the first one outside of quotes, how lines end; None if there is none yet."""
        alphabet = Alphabet.of(self.files, LF)
        is_free = bool(self.files.skip_lines) or text.startswith(alphabet.comment or b"\0")  # quotes mean nothing
        for line_end in re.finditer(rb"\r?\n|\r", text):
            if line_end.end() == len(text) and not is_last:
                return None
            before, _ = alphabet.without_escapes(np.frombuffer(text, np.uint8)[: line_end.start()])
            if is_free or np.count_nonzero(before == alphabet.quote) % 2 == 0:
                self._alphabet = Alphabet.of(self.files, CR if line_end.group() == b"\r" else LF)
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
            raise Misplaced(
                nul[0],
                "has a NUL byte, which is in no text: the file is damaged or was not written to its end, or something "
                "in UTF-16 was appended to it (as >> of PowerShell does)",
            )
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
        every = _Records(starts, bodies, fields)
        self._check_joint(raw, every)
        is_comment = np.isin(starts, comments) if comments else np.zeros(len(starts), np.bool_)
        if self.files.empty_rows == "drop":
            is_comment |= (fields > 1) & (bodies - starts == fields - 1)
        surplus = self._surplus_of(every, separators, is_comment)
        has_surplus = surplus > 0
        every = _Records(starts, bodies, fields - surplus)
        is_left_out = is_comment | self._blank(work, every, is_comment)
        records = every.only(~is_left_out)
        keep = np.ones(length, np.bool_)
        for place in np.flatnonzero(is_left_out):
            keep[starts[place] : ends[place] + 1] = False
        for size in range(1, self._surplus + 1):
            keep[bodies[has_surplus & ~is_left_out] - size] = False
        self._check_fields(work, records, separators)
        line, self.line = self.line, self.line + count_lines(raw[:length], alphabet)
        if not len(records.starts):
            return None, length
        self._made += len(records.starts)
        text = written(raw[:length], keep, escapes, marks, alphabet, missing=self._missing(records))
        return Block(text, len(records.starts), self.columns or 0, line), length

    def _check_joint(self, raw: Bytes, records: _Records) -> None:
        """Refuse a byte order mark at the beginning of a line; that of the file was left out before."""
        mark = np.frombuffer(codecs.BOM_UTF8, np.uint8)
        for start in records.starts[raw[np.minimum(records.starts, len(raw) - 1)] == mark[0]].tolist():
            if np.array_equal(raw[start : start + len(mark)], mark):
                raise Misplaced(
                    start,
                    "begins with a byte order mark, which stands at the beginning of a file: files were joined there; "
                    "remove the mark, and a header below it",
                )

    def _surplus_of(self, records: _Records, separators: Places, is_no_row: Mask) -> Places:
        """How many separators at the end of each record part nothing, as `trailing_separator` declares."""
        none = np.zeros(len(records.ends), np.intp)
        if not self.files.trailing_separator:
            return none
        lines = np.flatnonzero((records.ends > records.starts) & ~is_no_row)
        if not self._surplus and lines.size:
            end, most = records.ends[lines[0]], int(records.fields[lines[0]]) - 1
            if self.files.names is not None:
                most = min(most, int(records.fields[lines[0]]) - len(self.files.names))
            run = next((size for size in range(max(most, 0)) if not np.isin(end - 1 - size, separators)), max(most, 0))
            self._surplus = max(run, 1)
        has_surplus = records.ends - records.starts >= self._surplus
        for place in range(1, self._surplus + 1):
            has_surplus &= np.isin(records.ends - place, separators)
        return np.where(has_surplus, self._surplus, none)

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
        is_title = bool((records.fields > 1).any())  # what is above is no header, which is said elsewhere
        if below.size and self.files.missing_fields == "refuse" and not is_title:
            line = self.line + int(np.count_nonzero(work[: records.starts[below[0]]] == self._end()))
            title = f", or skip_lines: {line} if what is above is a title" if line <= _MOST_AROUND else ""
            raise Misplaced(
                records.starts[below[0]],
                "is blank, which in a file of one column may be a missing value or nothing: remove the line, or say "
                f"missing_fields: null if it is a row{title}",
            )
        return is_blank & is_above

    def _check_separator(self, work: Bytes, records: _Records, header: int) -> None:
        """Refuse a header of one column that another separator would part."""
        place, text = records.starts[header], work[records.starts[header] : records.ends[header]].tobytes().decode()
        other = next((one for one in SEPARATORS if one != self.files.separator and one in text), None)
        if self.columns == 1 and self.files.header == "first_line" and other is not None:
            raise Misplaced(
                place,
                f"is a header of one column, '{text[:_MOST_SHOWN]}': say separator: {json.dumps(other)} if that parts "
                "its columns, or give names: if it is one",
            )

    def _check_fields(self, work: Bytes, records: _Records, separators: Places) -> None:
        """Refuse a record that has not as many fields as the header."""
        columns, fields = self.columns or 0, records.fields
        is_wrong = fields != columns if self.files.missing_fields == "refuse" else fields > columns
        if not self._made and self.files.names is not None and self.files.header == "first_line" and len(fields):
            is_wrong[0] = fields[0] > columns  # `names` may give what the header lacks
        wrong = np.flatnonzero(is_wrong)
        if not wrong.size:
            return
        number = int(wrong[0])
        place, width = records.starts[number], int(fields[number])
        header = "the header has" if self.files.names is None else "names has"
        problem = f"has {width} field{'' if width == 1 else 's'}, {header} {columns}"
        if width < columns:
            remedy = self._when_short(work, records, number)
        elif np.isin(records.ends[number] - 1 - np.arange(width - columns), separators).all():
            ends = "a separator" if width == columns + 1 else f"{width - columns} separators"
            remedy = f"it ends in {ends}; say trailing_separator: true if each line does"
        else:
            remedy = self._when_long(work, records, number)
        raise Misplaced(place, f"{problem}: {remedy}")

    def _when_short(self, work: Bytes, records: _Records, number: int) -> str:
        text = work[records.starts[number] : records.ends[number]].tobytes()
        if text == b"\x1a":
            return "it is the mark with which DOS ended files (Ctrl-Z); remove it"
        rest = records.fields[number:]
        is_footer = len(rest) <= _MOST_AROUND and bool((rest < (self.columns or 0)).all())
        footer = f"; say skip_last_lines: {len(rest)} if it is a footer" if is_footer else ""
        return f"the file may have been cut off{footer}; say missing_fields: null if last fields may be left out"

    def _when_long(self, work: Bytes, records: _Records, number: int) -> str:
        remedy = f"put a value with {self.files.separator!r} in quotes"
        below = records.fields if self._made else records.fields[1:]
        if self.files.header == "none" or not (self._made + number == 1 or self.columns == 1):
            return remedy
        counts, times = np.unique(below, return_counts=True)
        header = int(np.argmax(records.fields == counts[np.argmax(times)]))  # the first line as long as most
        if not (header or self._made):
            return remedy
        lines = self.line - 1 + int(np.count_nonzero(work[: records.starts[header]] == self._end()))
        remedy = f"say skip_lines: {lines} if what is above is a title; otherwise {remedy}"
        if self.files.names is None and self.columns != 1 and (below == (self.columns or 0) + 1).all():
            remedy = (
                "if the header lacks the first column's name, as R leaves out that of row names, say names: with the "
                f"names of all columns; {remedy}"
            )
        return remedy

    def _end(self) -> int:
        return LF if self._alphabet is None else self._alphabet.end

    def _missing(self, records: _Records) -> Places:
        """Where separators are missing, once for each field that a record lacks."""
        lacking = np.maximum((self.columns or 0) - records.fields, 0)
        return np.repeat(records.ends, lacking) if self.columns != 1 else np.zeros(0, np.intp)

    def _refuse(self, line: int, problem: str) -> NoReturn:
        raise MalformedCsv(f"line {line} {problem}")
