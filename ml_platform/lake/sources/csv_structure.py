"""Where the values of a CSV text begin and end: quotes, separators, line ends, escapes, comments, by position."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ml_platform.lake.sources.file_spec import Files

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

SEPARATORS = ",;\t|"
LF, CR = 10, 13
PLAIN = ord("a")  # stands in for bytes that have no meaning where they are


class Misplaced(ValueError):
    """A byte that does not belong where it is, and what to do about it."""

    def __init__(self, place: int, problem: str) -> None:
        super().__init__(problem)
        self.place = int(place)


@dataclass(frozen=True)
class Marks:
    """Where quotes, separators and line ends are: positions, bytes, and whether a quote is open after each."""

    places: Places
    bytes: Bytes
    is_open: Mask

    def outside(self, byte: int) -> Places:
        """Positions of a byte outside of quotes."""
        return self.places[(self.bytes == byte) & ~self.is_open]

    def opened_before(self, places: Places) -> Mask:
        """Whether a quote is open at each of some positions."""
        before = np.searchsorted(self.places, places) - 1
        opened: Mask = (before >= 0) & (self.is_open[before] if len(self.places) else False)
        return opened


@dataclass(frozen=True)
class Alphabet:
    """The bytes that have a meaning in a file."""

    separator: int
    end: int  # of a line
    quote: int | None
    escape: int | None
    comment: bytes | None

    @classmethod
    def of(cls, files: Files, end: int) -> Self:
        """Take the bytes from a declaration."""
        return cls(
            separator=ord(files.separator),
            end=end,
            quote=None if files.quote == "none" else ord(files.quote),
            escape=None if files.escape is None else ord(files.escape),
            comment=None if files.comment is None else files.comment.encode(),
        )

    def without_escapes(self, raw: Bytes) -> tuple[Bytes, Places]:
        """Replace each escape and what it escapes by plain bytes; also give the positions of the escapes."""
        if self.escape is None or not (places := np.flatnonzero(raw == self.escape)).size:
            return raw, np.zeros(0, np.intp)
        new_run = np.concatenate([[True], np.diff(places) > 1])
        first = places[new_run][np.cumsum(new_run) - 1]
        escapes = places[(places - first) % 2 == 0]
        work = raw.copy()
        work[escapes] = PLAIN
        work[np.minimum(escapes + 1, len(raw) - 1)] = PLAIN
        return work, escapes

    def check_escapes(self, raw: Bytes, escapes: Places, is_last: bool) -> None:
        """Refuse an escape of what has no other meaning: who writes escapes would have escaped the escape."""
        if escapes.size and escapes[-1] + 1 == len(raw):
            if is_last:
                raise Misplaced(escapes[-1], "ends in an escape character: the file may have been cut off")
            escapes = escapes[:-1]
        allowed = [self.escape or 0, self.quote or 0, self.separator, LF, CR]
        wrong = escapes[~np.isin(raw[escapes + 1], allowed)]
        if wrong.size:
            raise Misplaced(
                wrong[0],
                f"has {bytes(raw[wrong[0] : wrong[0] + 2]).decode(errors='replace')}, but escape: is for quotes, "
                "separators, line ends and itself: write the escape twice, or leave escape: out",
            )

    def without_comments(self, work: Bytes, escapes: Places) -> tuple[Bytes, list[int]]:
        """Replace comments by plain bytes; also give the positions where they begin."""
        if self.comment is None:
            return work, []
        size, text = len(self.comment), work.tobytes()
        ends = np.flatnonzero(work == self.end)
        quotes = np.flatnonzero(work == self.quote) if self.quote is not None else np.zeros(0, np.intp)
        begins = np.concatenate([[0], ends + 1])
        begins = begins[begins + size <= len(work)]
        begins = begins[work[begins] == self.comment[0]]
        comments, in_comments, work = [], 0, work.copy()
        for begin in begins.tolist():
            before = int(np.searchsorted(quotes, begin))
            if (before - in_comments) % 2 or text[begin : begin + size] != self.comment:
                continue  # within a quoted value, or not the whole text
            after = int(np.searchsorted(ends, begin))
            end = int(ends[after]) if after < len(ends) else len(work)
            in_comments += int(np.searchsorted(quotes, end)) - before
            work[begin:end] = PLAIN
            comments.append(begin)
            if np.searchsorted(escapes, begin) != np.searchsorted(escapes, end):
                raise Misplaced(
                    begin, f"is a comment with {chr(self.escape or 0)}, which could also escape its end: leave it out"
                )
        return work, comments

    def marks(self, work: Bytes) -> Marks:
        """Find quotes, separators and line ends."""
        is_mark = (work == self.separator) | (work == self.end)
        if self.quote is not None:
            is_mark |= work == self.quote
        places = np.flatnonzero(is_mark)
        mark_bytes = work[places]
        # Only whether the number is odd counts, so it may overflow.
        is_open = (np.cumsum(mark_bytes == self.quote, dtype=np.uint8) & 1).view(np.bool_)
        return Marks(places, mark_bytes, is_open)

    def check_quotes(self, work: Bytes, marks: Marks, is_last: bool) -> None:
        """Refuse a quote that opens a value not at its beginning, or closes it not at its end, in all whole records."""
        ends = marks.outside(self.end)
        is_quote = marks.bytes == self.quote
        if not is_last:
            is_quote &= marks.places < (ends[-1] if ends.size else 0)
        if self.quote is None or not is_quote.any():
            return
        quotes, opens = marks.places[is_quote], marks.is_open[is_quote]
        before, after = work[quotes - 1], work[np.minimum(quotes + 1, len(work) - 1)]
        before[:1] = before[0] if quotes[0] else self.end
        after[-1:] = after[-1] if quotes[-1] + 1 < len(work) else self.end
        may_open, may_close = table(self.separator, self.end, self.quote), table(self.separator, LF, CR, self.quote)
        wrong = np.flatnonzero(np.where(opens, ~may_open[before], ~may_close[after]))
        if wrong.size:
            place, opening = int(quotes[wrong[0]]), bool(opens[wrong[0]])
            raise Misplaced(place, self._why_misplaced(work, place, opening))
        if is_last and opens[-1]:
            raise Misplaced(quotes[-1], "has a quote that is not closed: the file may have been cut off")

    def _why_misplaced(self, work: Bytes, quote: int, opening: bool) -> str:
        beside = work[:quote][::-1] if opening else work[quote + 1 :]
        blanks = int(np.argmin(np.append(np.isin(beside, list(b" \t")), False)))
        if blanks and (blanks == len(beside) or beside[blanks] in (self.separator, LF, CR)):
            side = "before" if opening else "after"
            return f"has a blank {side} a quote: say trim: true if blanks around values mean nothing"
        if not opening and blanks and beside[blanks] == self.quote:
            return 'has a blank between quoted values: say separator: " " if blanks part the columns'
        if not opening and beside[0] in SEPARATORS.encode():
            return f"has {chr(beside[0])!r} after a closing quote: say separator: {json.dumps(chr(beside[0]))}"
        what = "a quote within a value" if opening else "text after a closing quote"
        return (
            f'has {what}: put the value in quotes and write the quote twice ("5"" pipe"), say escape: if another '
            "character marks such quotes, or quote: none if they mean nothing"
        )

    def check_line_ends(self, work: Bytes, marks: Marks, is_last: bool) -> None:
        """Refuse the other kind of line end outside of quotes."""
        if self.end == LF:
            other, name = np.flatnonzero(work == CR), "a carriage return (CR) by itself"
            if other.size:
                after = work[np.minimum(other + 1, len(work) - 1)]
                # What follows the last byte is not known yet; its record is not whole either.
                is_alone = (after != LF) & (is_last | (other + 1 < len(work)))
                other = other[is_alone]
        else:
            other, name = np.flatnonzero(work == LF), "a line feed (LF), where earlier lines end in CR"
        outside = other[~marks.opened_before(other)] if other.size else other
        if outside.size:
            raise Misplaced(outside[0], f"has {name}: put a value with a line end in quotes, or end lines alike")


def table(*members: int | None) -> Mask:
    """For each byte, whether it is one of these."""
    is_member = np.zeros(256, np.bool_)
    is_member[[byte for byte in members if byte is not None]] = True
    return is_member
