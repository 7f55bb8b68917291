"""Rewrites CSV text on arrays of bytes: into RFC 4180 form, and without the blanks around values."""

import numpy as np

from ml_platform.lake.sources.csv_structure import CR, LF, PLAIN, Alphabet, Bytes, Marks, Mask, Places


def written(raw: Bytes, keep: Mask, escapes: Places, marks: Marks, alphabet: Alphabet, *, missing: Places) -> bytes:
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


def trimmed(raw: Bytes, alphabet: Alphabet, is_last: bool) -> Bytes:
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
    rest: Bytes = raw[keep]
    return rest


def length_of(raw: Bytes, records: Bytes, alphabet: Alphabet) -> int:
    """Length of some records before they were trimmed: up to as many line ends."""
    if not len(records):
        return 0
    if records[-1] != alphabet.end:
        return len(raw)
    return int(np.flatnonzero(raw == alphabet.end)[count_lines(records, alphabet) - 1]) + 1


def count_lines(text: Bytes, alphabet: Alphabet) -> int:
    """Count the lines that end in a text."""
    return int(np.count_nonzero(text == alphabet.end))
