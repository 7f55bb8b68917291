"""Which feature views could be looked up, since the table has their keys."""

from collections.abc import Collection, Iterator, Mapping

from ml_platform.features.views.view import FeatureView


def offered_lookups(views: Mapping[str, FeatureView], inputs: Collection[str]) -> Iterator[str]:
    """Yield the look-ups, as `lookups` in `defs.yaml` lists them, of views whose keys are all inputs.

    A key is an input of the same name in any case, or one with `_id` more or less.
    """
    by_name = {_plain(name): name for name in inputs}
    for name, view in sorted(views.items()):
        matches = {column: by_name.get(_plain(column)) for column in view.entity}
        if any(match is None for match in matches.values()):
            continue
        keys = {column: match for column, match in matches.items() if column != match}
        named = ", ".join(f"{column}: {match}" for column, match in keys.items())
        yield f"{{view: {name}, keys: {{{named}}}}}" if keys else f"{{view: {name}}}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").removesuffix("id")
