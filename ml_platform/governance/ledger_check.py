"""Anchors the ledger in the audit log, and verifies that it is what was written: nothing changed, removed or moved.

Whoever can write the ledger's table could make all links anew. The audit log, whose lines are chained by a secret, has
the number and link of each newest entry (the anchors): links that were made anew are not the anchored ones, and an end
that was cut off was anchored before.
"""

import polars as pl

from ml_platform.governance.audit import record_event
from ml_platform.governance.audit_chain import Finding
from ml_platform.governance.audit_table import read_audit
from ml_platform.lake.storage.damage import UNREADABLE, damage_in_words
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.ledger import LEDGER, SCHEMA, Link, first_link, next_link, read_ledger
from ml_platform.settings import Settings

ANCHORED = "ledger anchored"


def anchor_ledger(settings: Settings, link: Link | None) -> None:
    """Write the newest entry's number and link into the audit log; nothing when None."""
    if link is None:
        return
    record_event(settings.audit_dir, settings.keys_dir, ANCHORED, f"{link.number} {link.link}", by=LEDGER)


def verify_ledger(lake: Lake, settings: Settings) -> tuple[int, list[Finding]]:
    """Verify every entry of the ledger by its links, and the links by their anchors in the audit log.

    An entry whose writer was killed before it could anchor it is vouched for by the next one's anchor; until then
    `unanchored` names it.

    Returns
    -------
    tuple
        How many entries were checked, and what is wrong; the line of a finding is the entry's number.
    """
    try:
        entries = read_ledger(lake).cast(pl.Schema(SCHEMA))
    except UNREADABLE as error:
        return 0, [Finding(LEDGER, None, f"cannot be read: {damage_in_words(error)}")]
    linked = entries.filter(pl.col("number").is_not_null()).sort("number")
    links: dict[int, str] = {}
    findings: list[Finding] = []
    before, expected = first_link(entries.filter(pl.col("number").is_null())), 1
    for entry in linked.iter_rows(named=True):
        number = entry["number"]
        if number < expected:
            findings.append(Finding(LEDGER, number, "is there twice"))
            continue
        if number != expected:
            gap = f"entry {expected} is" if number == expected + 1 else f"entries {expected} to {number - 1} are"
            findings.append(Finding(LEDGER, expected, f"{gap} missing before entry {number}"))
        elif entry["link"] != next_link(before, entry):
            what = "was altered" if number > 1 else "was altered, or an entry from before there were numbers"
            findings.append(Finding(LEDGER, number, f"{what} ({entry['action']} of {entry['model']})"))
        links[number] = before = entry["link"]
        expected = number + 1
    return entries.height, findings + _against_anchors(links, _anchors(lake, settings))


def unanchored(lake: Lake, settings: Settings) -> list[int]:
    """Numbers of the entries after the newest anchor: of a writer that was killed, or that somebody else has added."""
    try:
        numbers = read_ledger(lake).cast(pl.Schema(SCHEMA))["number"].drop_nulls().to_list()
    except UNREADABLE:
        return []
    newest = max((anchor.number for anchor in _anchors(lake, settings)), default=0)
    return sorted(number for number in numbers if number > newest)


def _anchors(lake: Lake, settings: Settings) -> list[Link]:
    details = read_audit(lake, settings).filter(pl.col("action") == ANCHORED)["detail"].to_list()
    return [Link(int(number), link) for number, _, link in (str(detail).partition(" ") for detail in details)]


def _against_anchors(links: dict[int, str], anchors: list[Link]) -> list[Finding]:
    findings = []
    newest, anchored = max(links, default=0), max((anchor.number for anchor in anchors), default=0)
    if anchored > newest:
        what = f"entries are missing at the end: the audit log has the anchor of entry {anchored}"
        findings.append(Finding(LEDGER, newest + 1, what))
    findings += [
        Finding(LEDGER, anchor.number, "is not the entry that the audit log has the anchor of")
        for anchor in sorted(set(anchors), key=lambda one: one.number)
        if links.get(anchor.number, anchor.link) != anchor.link
    ]
    return findings
