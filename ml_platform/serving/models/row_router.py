"""Who answers a row of a route: by the value of an input, or by expressions over some."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import msgspec

from ml_platform.features.expressions.compile import columns_of, evaluator
from ml_platform.instants import read_instant
from ml_platform.registry.composition import Route
from ml_platform.registry.manifest import Input


class RowRouter:
    """Reads of a body no more than the inputs that decide.

    Examples
    --------
    >>> router = RowRouter(Route(default="rest", by="carrier", values=(("UA", "united"),)), [])
    >>> router.members(b'{"rows": [{"carrier": "UA", "distance": 229}, {"carrier": null}]}', is_many=True)
    ['united', 'rest']
    """

    def __init__(self, route: Route, inputs: Sequence[Input]) -> None:
        by_rules = (name for rule in route.rules for name in sorted(columns_of(rule.tree)))
        names = dict.fromkeys([route.by] if route.by else by_rules)
        self.names = tuple(names)
        self._default = route.default
        self._by_value: dict[Any, str] | None = dict(route.values) if route.by else None
        self._rules = tuple((evaluator(rule.tree), rule.model) for rule in route.rules)
        self._instants = tuple(one.name for one in inputs if one.name in names and one.type == "timestamp")
        attributes = [f"input_{number}" for number in range(len(names))]
        row = msgspec.defstruct(
            "Row",
            [(attribute, Any, None) for attribute in attributes],
            rename=dict(zip(attributes, names, strict=True)),
            gc=False,
        )
        many: Any = msgspec.defstruct("Rows", [("rows", list[row])])  # type: ignore[valid-type]
        self._one, self._many = msgspec.json.Decoder(row).decode, msgspec.json.Decoder(many).decode

    def members(self, body: bytes, *, is_many: bool) -> list[str]:
        """Who answers each row of a body.

        Raises
        ------
        MsgspecError, UnicodeDecodeError, TypeError, ValueError, ArithmeticError
            For a body that cannot be read, or with values of other types than the inputs'.
        """
        rows: list[Any] = self._many(body).rows if is_many else [self._one(body)]
        if self._by_value is not None:
            get = self._by_value.get
            return [get(row.input_0, self._default) for row in rows]
        return [self._by_rules(msgspec.structs.astuple(row)) for row in rows]

    def _by_rules(self, row: Sequence[Any]) -> str:
        values = dict(zip(self.names, row, strict=True))
        for name in self._instants:
            if values[name] is not None:
                values[name] = read_instant(values[name]).astimezone(UTC)
        return next((member for is_true, member in self._rules if is_true(values) is True), self._default)
