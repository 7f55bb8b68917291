"""The chain of the audit log's lines, in memory: what `Chains` says of files that are whole, cut, altered or gone."""

from datetime import UTC, datetime

import msgspec
import pytest

from ml_platform.governance.audit import Entry, first_mac, next_mac, split_line
from ml_platform.governance.audit_chain import Chains, Finding

SECRET = b"secret"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def sealed(file: str, *entries: Entry, secret: bytes = SECRET) -> list[bytes]:
    """Lines of a file, as the log writes them."""
    mac, lines = first_mac(secret, file), []
    for entry in entries:
        payload = msgspec.json.encode(entry)
        mac = next_mac(secret, mac, payload)
        lines.append(payload[:-1] + b',"mac":"' + mac.hex().encode() + b'"}')
    return lines


def entries(*numbers: int) -> list[Entry]:
    return [Entry(time=NOW, number=number, action="tried") for number in numbers]


def naming(file: str, lines: list[bytes], number: int = 0) -> Entry:
    """A first line that says how far another file has come."""
    return Entry(time=NOW, number=number, action="opened", heads={file: (len(lines), split_line(lines[-1])[1].hex())})


def checked(**files: list[bytes]) -> Chains:
    chains = Chains(SECRET)
    for file, lines in files.items():
        chains.check(file, lines)
    return chains


def said(chains: Chains, besides: Chains | None = None) -> list[str]:
    return [str(finding) for finding in chains.findings(besides)]


def test_whole_files_are_sound_and_counted() -> None:
    first = sealed("a", *entries(0, 1, 2))
    chains = checked(a=first, b=sealed("b", naming("a", first), *entries(1)))
    assert (said(chains), chains.lines, chains.files) == ([], 5, 2)


def test_a_line_of_another_file_or_secret_was_altered() -> None:
    assert said(checked(a=sealed("b", *entries(0)))) == ["a, line 0: was altered"]
    assert said(checked(a=sealed("a", *entries(0), secret=b"guess"))) == ["a, line 0: was altered"]


@pytest.mark.parametrize(
    ("left", "finding"),
    [
        ([0, 2, 3], "a, line 1: line 1 is missing before line 2"),
        ([0, 3], "a, line 1: lines 1 to 2 are missing before line 3"),
        ([2, 3], "a, line 0: lines 0 to 1 are missing before line 2"),
        ([0, 2, 1, 3], "a, line 1: stands a second time or out of order, after line 2"),
        ([0, 1, 1, 2, 3], "a, line 1: stands a second time or out of order, after line 1"),
    ],
)
def test_missing_and_moved_lines_are_placed(left: list[int], finding: str) -> None:
    lines = sealed("a", *entries(0, 1, 2, 3))
    assert finding in said(checked(a=[lines[number] for number in left]))


def test_a_number_beyond_all_files_is_an_alteration_not_a_gap() -> None:
    [line] = sealed("a", *entries(4_000_000_000))
    assert said(checked(a=[line])) == ["a, line 0: was altered: it says that it is line 4000000000"]


def test_what_a_later_file_names_must_be_there() -> None:
    first = sealed("a", *entries(0, 1, 2))
    later = sealed("b", naming("a", first))
    assert said(checked(b=later)) == ["a: is missing; it had 3 lines when b was opened"]
    assert said(checked(a=first[:2], b=later)) == [
        "a, line 2: lines are missing at the end: it had 3 when b was opened"
    ]
    other = sealed("a", *entries(0, 1), Entry(time=NOW, number=2, action="something else"))
    assert said(checked(a=other, b=later)) == ["a, line 2: is not the line that was there when b was opened"]


def test_lines_may_be_in_the_table_and_in_the_folder() -> None:
    first = sealed("a", *entries(0, 1, 2))
    table, folder = checked(a=first), checked(b=sealed("b", naming("a", first)))
    assert said(folder) == ["a: is missing; it had 3 lines when b was opened"]
    assert said(folder, besides=table) == []
    assert said(checked(a=first[:1], b=sealed("b", naming("a", first))), besides=table) == [], "the longest copy counts"


def test_a_line_within_a_gap_proves_nothing_of_those_it_names() -> None:
    """The named line is among those that are missing: that they are is said once, where they are."""
    first = sealed("a", *entries(0, 1, 2, 3))
    later = sealed("b", Entry(time=NOW, number=0, heads={"a": (2, split_line(first[1])[1].hex())}))
    assert said(checked(a=[first[0], first[2], first[3]], b=later)) == ["a, line 1: line 1 is missing before line 2"]


def test_findings_are_in_order_and_each_there_once() -> None:
    first = sealed("a", *entries(0, 1))
    later = [sealed(name, naming("c", first)) for name in ("x", "x")]
    chains = checked(x=later[0], b=[b"?"], a=[b"?", b"?"])
    chains.check("x", later[1])
    assert [finding.place for finding in chains.findings()] == sorted({one.place for one in chains.findings()})
    assert [str(one) for one in (Finding("a", None, "is gone"), Finding("a", 3, "was altered"))] == [
        "a: is gone",
        "a, line 3: was altered",
    ]
