"""Adds a contract's rules to its Delta table as constraints, so that writers with other tools must keep to them too.

These are the rules of single columns that SQL can express: never missing, bounds of numbers, allowed values. Primary
keys and other rules are checked only by `ml_platform.lake.contracts.contract`, which every ingest uses.
"""

import hashlib

import dataframely as dy
from deltalake.exceptions import DeltaError

from ml_platform.lake import names
from ml_platform.lake.contracts.contract import OneOf
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.snapshots import constraints
from ml_platform.lake.storage.tables import Lake

_OURS = "contract_"
_BOUNDS = {"min": ">=", "min_exclusive": ">", "max": "<=", "max_exclusive": "<"}


def constraints_of(contract: type[dy.Schema]) -> dict[str, str]:
    """Delta constraints of a contract: name → SQL. The name changes with the rule.

    Examples
    --------
    >>> class Readings(dy.Schema):
    ...     sensor = dy.String(primary_key=True)
    ...     value = dy.Float64(nullable=True, max=100)
    >>> list(constraints_of(Readings).values())
    ['"sensor" IS NOT NULL', '"value" IS NULL OR "value" <= 100']
    """
    rules = [
        (f"{column}_{rule}", text)
        for column, made in contract.columns().items()
        if column != "null"  # delta-rs takes even the quoted name for a missing value, and would refuse every row
        for rule, text in _rules(column, made)
    ]
    return {f"{_OURS}{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}": text for name, text in rules}


def loosen(lake: Lake, table: str, contract: type[dy.Schema]) -> None:
    """Drop the constraints that the contract no longer has, before rows are written that they would refuse."""
    if not lake.exists(table):
        return
    wanted = constraints_of(contract)

    def attempt() -> None:
        for name in [
            name for name in constraints(lake.snapshot(table)) if name.startswith(_OURS) and name not in wanted
        ]:
            lake.snapshot(table).alter.drop_constraint(
                name, commit_properties=commits.properties(), post_commithook_properties=commits.HOOKS
            )

    lake.retried(table, "drop constraints of", attempt)


def tighten(lake: Lake, table: str, contract: type[dy.Schema]) -> tuple[str, ...]:
    """Add the constraints that the table lacks, in one commit if all of its rows meet them.

    Returns
    -------
    tuple of str
        The constraints, as SQL, that older rows break. They are not added until these rows are loaded again.
    """

    def missing() -> dict[str, str]:
        there = constraints(lake.snapshot(table))
        return {name: text for name, text in constraints_of(contract).items() if name not in there}

    def add(wanted: dict[str, str]) -> bool:
        try:
            lake.snapshot(table).alter.add_constraint(
                wanted, commit_properties=commits.properties(), post_commithook_properties=commits.HOOKS
            )
        except DeltaError as error:
            if not commits.is_violation(error):
                raise
            return False
        return True

    def attempt() -> tuple[str, ...]:
        wanted = missing()
        if not wanted or add(wanted):
            return ()
        return tuple(text for name, text in wanted.items() if not add({name: text}))

    return lake.retried(table, "add constraints to", attempt)


def _rules(name: str, column: dy.Column) -> list[tuple[str, str]]:
    quoted = names.quoted(name)
    rules = [
        (bound, f"{quoted} {sign} {getattr(column, bound)}")
        for bound, sign in _BOUNDS.items()
        if isinstance(getattr(column, bound, None), int | float)
    ]
    checks = getattr(column, "check", None)
    for check in checks.values() if isinstance(checks, dict) else ():
        if isinstance(check, OneOf):
            values = ", ".join(map(names.literal, check.allowed))
            rules.append(("one_of", f"{quoted} IN ({values})"))
    if not column.nullable:
        return [("present", f"{quoted} IS NOT NULL"), *rules]
    return [(rule, f"{quoted} IS NULL OR {text}") for rule, text in rules]
