"""Verifies lines of the audit log: none altered, missing or moved."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from ml_platform.governance.audit import Entry, first_mac, next_mac, split_line

_BYTES = 16  # of an HMAC
_UNKNOWN = "00" * _BYTES
_LONGEST_GAP = 10_000_000


@dataclass(frozen=True)
class Finding:
    """Something wrong: in which file, at which line (from 0), and what."""

    file: str
    line: int | None
    what: str

    @property
    def place(self) -> tuple[str, int, str]:
        """Sorts findings by where they are."""
        return self.file, -1 if self.line is None else self.line, self.what

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f', line {self.line}'}: {self.what}"


@dataclass
class Chains:
    """Checks files one by one, then against one another.

    Examples
    --------
    >>> chains = Chains(b"secret")
    >>> chains.check("a.jsonl", [b"{}"])
    >>> [str(finding) for finding in chains.findings()]
    ['a.jsonl, line 0: cannot be read as a line of the audit log']
    """

    secret: bytes
    lines: int = 0
    files: int = 0
    _found: list[Finding] = field(default_factory=list)
    _macs: dict[str, bytearray] = field(default_factory=dict)  # of all lines of a file, zeros for those missing
    _named: list[tuple[str, str, int, str]] = field(default_factory=list)

    def check(self, file: str, lines: Iterable[bytes]) -> None:
        """Check the lines of a file, in the order in which they stand there."""
        before, expected = first_mac(self.secret, file), 0
        macs = self._macs.setdefault(file, bytearray())
        self.files += 1
        for place, line in enumerate(lines):
            self.lines += 1
            try:
                payload, mac = split_line(line)
                entry = msgspec.json.decode(payload, type=Entry)
            except ValueError:
                self._say(file, place, "cannot be read as a line of the audit log")
                continue
            number = entry.number
            if number - expected > _LONGEST_GAP:
                self._say(file, expected, f"was altered: it says that it is line {number}")
                continue
            if number < expected:
                self._say(file, number, f"stands a second time or out of order, after line {expected - 1}")
                continue
            if number > expected:
                gap = f"line {expected} is" if number == expected + 1 else f"lines {expected} to {number - 1} are"
                self._say(file, expected, f"{gap} missing before line {number}")
            elif mac != next_mac(self.secret, before, payload):
                self._say(file, number, "was altered")
            else:
                self._named += [(file, other, *head) for other, head in entry.heads.items()]
            macs[_BYTES * number :] = mac.rjust(_BYTES * (number - expected + 1), b"\0")
            before, expected = mac, number + 1

    def findings(self, besides: "Chains | None" = None) -> list[Finding]:
        """Everything that is wrong, after all files were checked; `besides` has seen other copies and parts of them."""
        findings = list(self._found)
        for by, file, count, mac in self._named:
            copies = [self._macs.get(file), besides._macs.get(file) if besides else None]
            there = max((copy for copy in copies if copy is not None), key=len, default=None)
            if there is None:
                findings.append(Finding(file, None, f"is missing; it had {count} lines when {by} was opened"))
                continue
            have, at = len(there) // _BYTES, there[_BYTES * (count - 1) : _BYTES * count].hex()
            if have < count:
                findings.append(
                    Finding(file, have, f"lines are missing at the end: it had {count} when {by} was opened")
                )
            elif at not in (mac, _UNKNOWN):
                findings.append(Finding(file, count - 1, f"is not the line that was there when {by} was opened"))
        return sorted(set(findings), key=lambda one: one.place)

    def _say(self, file: str, line: int, what: str) -> None:
        self._found.append(Finding(file, line, what))
