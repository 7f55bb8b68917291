"""Versions compared on the same rows, which neither has learned from: kept in the release store, told in words.

`ml_platform.promotion.compare` makes them, from the lake; whoever has the release store alone, as the console, reads
them: `comparisons/<model>/<version>-<version>.json` under its folder.
"""

from collections.abc import Mapping

from markupsafe import Markup

from ml_platform.atomic_files import replace_file
from ml_platform.registry.interval_figure import interval_svg
from ml_platform.registry.manifest import Struct
from ml_platform.registry.model_card import CardInterval
from ml_platform.registry.recorded_comparison import Part, Row
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import document_bytes, read_document


class ComparedGroup(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The gate's metric of each version on one group of the rows; None where it has none."""

    column: str
    value: str
    rows: int
    metrics: tuple[float | None, ...]


class SameRows(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Versions, as the gate judged them, on the same rows; one value a version, in their order."""

    model: str
    versions: tuple[int, ...]
    digests: tuple[str, ...]
    metric: str
    rows: int
    first: str  # ISO 8601, UTC
    last: str
    metrics: tuple[dict[str, float], ...]
    gains: tuple[CardInterval | None, ...]  # over the first version; None where the rows make too few blocks
    within_blocks: tuple[CardInterval | None, ...]  # of the same gains, if the same blocks came again with other rows
    intervals: tuple[dict[str, tuple[float, float]], ...] = ()  # of each one's metrics, over blocks; as far as computed
    further_gains: tuple[dict[str, CardInterval], ...] = ()  # over the first version, in metrics that decide nothing
    groups: tuple[ComparedGroup, ...] = ()
    compared_at: str  # ISO 8601, UTC


def keep_comparison(store: ReleaseStore, compared: SameRows) -> None:
    """Keep a comparison; a later one of the same versions takes its place."""
    name = "-".join(map(str, compared.versions))
    path = store.folder / "comparisons" / compared.model / f"{name}.json"
    replace_file(path, document_bytes(compared))


def find_comparison(store: ReleaseStore, model: str, digests: Mapping[int, str]) -> SameRows | None:
    """The newest comparison of just these versions, in whichever order; None when nobody has compared them.

    Parameters
    ----------
    store
        The release store.
    model
        Whose versions.
    digests
        Version → digest of its bundle: a comparison of other bundles does not count.

    Raises
    ------
    DocumentUnreadable
        When a file is damaged.
    """
    comparisons = []
    for path in (store.folder / "comparisons" / model).glob("*.json"):
        if set(path.stem.split("-")) != set(map(str, digests)):
            continue
        compared = read_document(path, SameRows, "a comparison", "compare the versions again")
        if dict(zip(compared.versions, compared.digests, strict=True)) == digests:
            comparisons.append(compared)
    return max(comparisons, key=lambda one: one.compared_at, default=None)


def verdicts(compared: SameRows) -> list[str]:
    """Say of each later version whether it is better than the first, by how much, and how sure that is."""
    days = f"{compared.first[:10]} to {compared.last[:10]}"
    rows = f"{compared.rows:,} rows that none had learned from when the gate judged it ({days})"
    first, told = compared.versions[0], []
    for version, gain, again in list(zip(compared.versions, compared.gains, compared.within_blocks, strict=True))[1:]:
        if gain is None:
            told.append(f"On {rows}: too few blocks (`promotion.block`) for an interval of version {version}.")
            continue
        sure = f"versions {first} and {version} are alike as far as these rows can tell"
        if gain.lower > 0:
            sure = f"version {version} is better"
        elif gain.upper < 0:
            sure = f"version {first} is better"
        told.append(
            f"On {rows}: gain of version {version} over version {first} in {compared.metric} {gain.gain:+.4f}, "
            f"{gain.confidence:.0%} interval {gain.lower:+.4f} to {gain.upper:+.4f} over {gain.blocks} blocks "
            f"({gain.block}): {sure}."
        )
        if again is not None:
            told.append(
                f"If the same blocks came again with other rows: {again.lower:+.4f} to {again.upper:+.4f}, which does "
                "not see how blocks differ, and decides nothing."
            )
    return told


def gain_figures(compared: SameRows) -> list[tuple[int, Markup]]:
    """Both intervals of the gain of each later version, drawn to one scale."""
    drawn = zip(compared.versions, compared.gains, compared.within_blocks, strict=True)
    return [(version, interval_svg(gain, again)) for version, gain, again in drawn if gain is not None]


def same_rows_parts(compared: SameRows) -> list[Part]:
    """Metrics and groups on the same rows, as `fact_rows` gives what is recorded."""
    names = {name for one in compared.metrics for name in one}
    ordered = sorted(names, key=lambda name: (name != compared.metric, name))
    bounds = compared.intervals or ({},) * len(compared.versions)
    metrics = [
        (
            name,
            tuple(
                _bounded(one.get(name), known.get(name)) for one, known in zip(compared.metrics, bounds, strict=True)
            ),
        )
        for name in ordered
    ]
    further = compared.further_gains or ({},) * len(compared.versions)
    gains = [
        (name, tuple(_gain(one.get(name)) for one in further))
        for name in ordered
        if any(name in one for one in further)
    ]
    groups: list[Row] = [
        (f"{one.column} = {one.value} ({one.rows:,} rows)", tuple(map(_number, one.metrics))) for one in compared.groups
    ]
    parts = [
        ("Metrics on the same rows", metrics),
        (f"Gains over version {compared.versions[0]} in other metrics, which decide nothing", gains),
        ("Groups on the same rows", groups),
    ]
    return [(title, rows) for title, rows in parts if rows]


def _bounded(value: float | None, bounds: tuple[float, float] | None) -> str:
    return _number(value) + (f" ({bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else "")


def _gain(gain: CardInterval | None) -> str:
    return "–" if gain is None else f"{gain.gain:+.4f} ({gain.lower:+.4f} to {gain.upper:+.4f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
