"""The SQL of windows whose events count from their arrival on, with sums of scaled integers: the definition in words.

It joins every row with the events of its key, which is plain and slow. `change_engine` computes the same rows.
"""

from collections.abc import Sequence

from ml_platform.features.rolling.spec import Aggregate, Rolling, microseconds, value_column, window_name
from ml_platform.lake.names import quoted


def scaled_column(item: Aggregate) -> str:
    """Name of the column with the values that an aggregate adds up, as whole numbers of its last decimal place."""
    return f"__scaled_{item.decimals}_{item.column}"


def arrival_events_sql(rolling: Rolling, entity: Sequence[str], *, table: str = "", also: str = "") -> str:
    """Query for the events: entity, time (`__us`), from when on it counts (`__known`), values, whether it counts.

    `table` is what is read in place of the source, `also` a further column of it.

    Values that are summed with `decimals` are whole numbers of the last decimal place; one that does not fit 64 bits,
    or is not finite, fails the query.
    """
    values = "".join(f", {quoted(name)} AS {quoted(value_column(name))}" for name in rolling.inputs())
    sums = {scaled_column(item): item for item in rolling.aggregates.values() if item.decimals is not None}
    scaled = "".join(
        f", round_even({quoted(item.column or '')}::DOUBLE * 1e{item.decimals}, 0)::BIGINT AS {quoted(name)}"
        for name, item in sums.items()
    )
    schema, _, name = rolling.source.partition("/")
    table = table or f"{quoted(schema)}.{quoted(name)}"
    not_null = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in entity)
    at = f"epoch_us({quoted(rolling.time)})"
    known = f"greatest({at}, epoch_us({quoted(rolling.arrived)}))" if rolling.arrived else at
    further = f", {also}" if also else ""
    return (
        f"SELECT {', '.join(map(quoted, entity))}, {at} AS __us, {known} AS __known{values}{scaled}{further}, "
        f"coalesce({not_null} AND ({rolling.filter or 'true'}), false) AS __counts\n"
        f"    FROM {table} WHERE {quoted(rolling.time)} IS NOT NULL"
    )


def arrival_sql(
    rolling: Rolling, entity: Sequence[str], event_time: str, *, chosen: str = "", newest: int | None = None
) -> str:
    """See `Rolling.sql`; a row is written when an event arrives, and when it leaves a window that it had been in."""
    keys = ", ".join(map(quoted, entity))
    events = arrival_events_sql(rolling, entity) + (f" AND {chosen}" if chosen else "")
    end = "(SELECT max(__us) FROM events)" if newest is None else str(newest)
    longest = max(map(microseconds, rolling.windows))
    points = f"SELECT {keys}, __known AS __us FROM events WHERE __counts AND __known < __us + {longest}"
    if rolling.rows == "changes":
        lengths = ", ".join(f"({microseconds(window)})" for window in rolling.windows)
        points += (
            f"\n    UNION ALL SELECT {keys}, __us + length FROM events, (VALUES {lengths}) AS t(length) "
            "WHERE __counts AND __known < __us + length"
        )
    same = " AND ".join(f"e.{quoted(name)} = p.{quoted(name)}" for name in entity)
    features = ",\n    ".join(
        f"{_call(item, microseconds(window))} AS {quoted(f'{name}_{window_name(window)}')}"
        for name, item in rolling.aggregates.items()
        for window in rolling.windows
    )
    grouped = ", ".join(f"p.{quoted(name)}" for name in entity)
    return (
        f"WITH events AS MATERIALIZED (\n    {events}\n), points AS (\n    {points}\n), rows AS (\n"
        f"    SELECT DISTINCT {keys}, __us FROM points WHERE __us <= {end}\n)\n"
        f"SELECT {grouped},\n    {features},\n    make_timestamp(p.__us) AT TIME ZONE 'UTC' AS {quoted(event_time)}\n"
        f"FROM rows AS p LEFT JOIN events AS e\n"
        f"ON {same} AND e.__counts AND e.__known <= p.__us AND e.__us > p.__us - {longest}\n"
        f"GROUP BY {grouped}, p.__us"
    )


def compiled_sql(
    rolling: Rolling, entity: tuple[str, ...], event_time: str, *, chosen: str = "", newest: int | None = None
) -> str:
    """Compile to the query that defines the rows: `Rolling.sql`, or `arrival_sql` where that is the definition."""
    if rolling.arrived or rolling.is_exact:
        return arrival_sql(rolling, entity, event_time, chosen=chosen, newest=newest)
    return rolling.sql(entity, event_time, chosen=chosen, newest=newest)


def _call(item: Aggregate, window: int) -> str:
    inside = f"e.__us > p.__us - {window}"
    if item.function == "count":
        return f"count(*) FILTER ({inside})"
    column = f"e.{quoted(value_column(item.column or ''))}"
    if item.function == "distinct":
        return f"count(DISTINCT {column}) FILTER ({inside})"
    if item.function == "last":  # of several at the same instant the greatest, as in `Rolling.sql`
        newest = f"{{'us': e.__us, 'value': {column}}}"
        return f"arg_max({column}, {newest}) FILTER ({inside} AND {column} IS NOT NULL)"
    if item.function in {"min", "max"}:
        return f"{item.function}({column}) FILTER ({inside})"
    total = f"sum(e.{quoted(scaled_column(item))}::HUGEINT) FILTER ({inside})::DOUBLE / 1e{item.decimals}"
    if item.function == "mean":
        return f"{total} / count({column}) FILTER ({inside})"
    return f"coalesce({total}, 0)"
