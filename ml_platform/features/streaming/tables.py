"""Which views follow a stream, by the table that it fills."""

from collections.abc import Mapping

from ml_platform.features.views.view import FeatureView


def streamed_tables(views: Mapping[str, FeatureView]) -> dict[str, list[FeatureView]]:
    """The views with a `stream`, by the raw table that it fills.

    Raises
    ------
    ValueError
        If views of one table declare different streams or time columns.
    """
    tables: dict[str, list[FeatureView]] = {}
    for _, view in sorted(views.items()):
        if view.stream is None or view.rolling is None:
            continue
        same = tables.setdefault(view.rolling.source, [])
        first = same[0] if same else view
        if (first.stream, first.rolling and first.rolling.time) != (view.stream, view.rolling.time):
            raise ValueError(
                f"views '{first.name}' and '{view.name}': both get {view.rolling.source} from a stream, so `stream` "
                "and `rolling.time` must be equal: one process fills the table for all views"
            )
        same.append(view)
    return tables
