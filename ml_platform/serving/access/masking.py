"""Hides from a caller under an access policy the values of views that are masked for it, and views with hidden rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ml_platform.features.services.lookup import ViewValues
from ml_platform.governance.access.published import ProtectionStore, ViewAccess
from ml_platform.registry.manifest import Manifest, feature_of
from ml_platform.serving.access.governed import GovernedCaller
from ml_platform.serving.http.messages import Refused


class Masking:
    """What callers do not see. One per worker; without a policy it decides nothing and costs nothing."""

    def __init__(self, store: ProtectionStore) -> None:
        self._store = store

    def accesses(self, caller: object, views: Iterable[str]) -> dict[str, ViewAccess]:
        """What a caller sees of views that are looked up; none for who sees all, as without a policy.

        Raises
        ------
        Refused
            403 for a view of which rows are hidden from the caller, or of which it is not known what it protects.
        """
        if not isinstance(caller, GovernedCaller):
            return {}
        found = {view: self._store.access(caller.policy, caller.principal, view) for view in views}
        for view, access in found.items():
            if not access.is_known:
                raise Refused(403, "forbidden", _unknown(view))
            if access.is_filtered:
                raise Refused(403, "forbidden", _filtered(view, caller.principal.text))
        return found

    def hidden_features(self, caller: object, manifests: Iterable[Manifest]) -> frozenset[str]:
        """Features of models whose values a caller does not see: all of a view of which rows are hidden from it."""
        if not isinstance(caller, GovernedCaller):
            return frozenset()
        hidden = set()
        for manifest in manifests:
            for lookup in manifest.lookups:
                access = self._store.access(caller.policy, caller.principal, lookup.view)
                hidden |= {
                    column
                    for column in lookup.features
                    if access.is_filtered or access.hides(feature_of(lookup.view, column))
                }
        return frozenset(hidden)


def mask_values(views: Sequence[ViewValues], accesses: Mapping[str, ViewAccess]) -> tuple[list[ViewValues], list[str]]:
    """Looked-up values without those that are hidden, and the hidden ones' names in the answer, in its order."""
    shown: list[ViewValues] = []
    names: list[str] = []
    for one in views:
        access, view = accesses[one.view.view], one.view
        hidden = frozenset(feature for feature in view.features if access.hides(feature))
        values = [_without(row, hidden) for row in one.values] if hidden else one.values
        micros: list[int | None] = [None] * len(one.micros) if access.hides_time else one.micros
        names += [column for feature, column in zip(view.features, view.columns, strict=True) if feature in hidden]
        shown.append(ViewValues(view, one.status, micros, values))
    return shown, names


def _without(row: Mapping[str, Any], hidden: frozenset[str]) -> Mapping[str, Any]:
    return {name: value for name, value in row.items() if name not in hidden}


def check_instant(accesses: Mapping[str, ViewAccess]) -> None:
    """Refuse an instant to look up as of, by which a hidden event time could be told (raises Refused)."""
    if view := next((view for view, access in accesses.items() if access.hides_time), None):
        raise Refused(403, "forbidden", f"the event time of features.{view} is masked for you: look up without as_of")


def mask_details(predictions: Sequence[Any], hidden: frozenset[str]) -> list[str]:
    """Put null in the place of hidden values and contributions in predictions; return the names of those, sorted.

    Hidden contributions come last, so that their order tells nothing.
    """
    names: set[str] = set()
    for prediction in predictions:
        if prediction.features is not msgspec.UNSET:
            names |= hidden & prediction.features.keys()
            prediction.features = {
                name: None if name in hidden else value for name, value in prediction.features.items()
            }
        if prediction.explanation is not msgspec.UNSET:
            told = prediction.explanation["contributions"]
            own = sorted(hidden & told.keys())
            names.update(own)
            shown = {name: value for name, value in told.items() if name not in hidden}
            prediction.explanation = {**prediction.explanation, "contributions": shown | dict.fromkeys(own)}
    return sorted(names)


def _filtered(view: str, who: str) -> str:
    return (
        f"a row filter of features.{view} hides rows from {who}, and look-ups cannot tell which: read the view by "
        f"`ml-platform sql` or the SQL server, or let its owner name {who} in `exempt` of the filter"
    )


def _unknown(view: str) -> str:
    return (
        f"what features.{view} masks is not published to this server: materialise online/{view}, or run "
        "`ml-platform features publish`, from the project that declares it"
    )
