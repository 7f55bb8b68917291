"""A stream of sales and the views that follow it, for the tests of streamed features."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ml_platform.features.online.store import OnlineStore, Row, to_micros
from ml_platform.features.streaming.lookup import rows_at
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.streams.protocols import Message

START = datetime(2024, 5, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STREAM = """
stream:
  source: {type: kafka, topic: sales, servers: "SERVERS"}
  columns: {shop: string, amount: number, clerk: string, sold_at: timestamp, status: string}
  fields: {amount: cart.total}
  lateness: 30 seconds
  clock: CLOCK
  commit_every: 0.2 seconds
"""
TILL = """
description: How a shop is selling.
owner: shops@example.com
entity: [shop]
ttl: 1 day
rolling:
  source: raw/sales
  time: sold_at
  filter: status <> 'void'
  windows: [10 seconds, 2 minutes]
  aggregates:
    sales: {function: count, description: Sales.}
    revenue: {function: sum, column: amount, decimals: 2, unit: EUR, description: Takings.}
    basket: {function: mean, column: amount, decimals: 2, unit: EUR, description: Mean sale.}
    clerks: {function: distinct, column: clerk, description: Clerks seen.}
    last_clerk: {function: last, column: clerk, type: string, description: Who sold last.}
    largest: {function: max, column: amount, description: Largest sale.}
"""
CLERK = """
description: How a clerk is selling.
owner: shops@example.com
entity: [shop, clerk]
rolling:
  source: raw/sales
  time: sold_at
  windows: [1 minute]
  rows: events
  aggregates:
    sales: {function: count, description: Sales.}
"""


def views(
    folder: Path,
    *,
    clock: str = "broker",
    names: Iterable[str] = ("till", "clerk_load"),
    servers: str = "127.0.0.1:9",
) -> list[FeatureView]:
    """The views, read from their files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("till", TILL), ("clerk_load", CLERK)):
        if name in names:
            (folder / f"{name}.yaml").write_text(text + STREAM.replace("CLOCK", clock).replace("SERVERS", servers))
    return [view for _, view in sorted(load_views(folder).items())]


def sale(position: int, second: float, *, delay: float = 0.0, partition: int = 0, **changes: Any) -> Message:
    """A message about a sale `second` seconds after the start, which the broker got `delay` seconds later."""
    at = START + SECOND * second
    event = {"shop": "a", "cart": {"total": 1.25}, "clerk": "x", "sold_at": at.isoformat(), "status": "ok"}
    if "amount" in changes:
        event["cart"] = {"total": changes.pop("amount")}
    value = json.dumps({**event, **changes}).encode()
    return Message(partition, position, value, None, to_micros(at + SECOND * delay))


def look_up(store: OnlineStore, view: FeatureView, *key: Any, at: datetime) -> Row | None:
    """The row of an entity that serving uses at an instant."""
    return rows_at(store, view.name, [key], at)[0]


class Clock:
    """A clock that tests set."""

    def __init__(self, second: float = 0.0) -> None:
        self.now = START + SECOND * second

    def __call__(self) -> float:
        return self.now.timestamp()

    def set(self, second: float) -> None:
        """Set the clock, in seconds since the start."""
        self.now = START + SECOND * second
