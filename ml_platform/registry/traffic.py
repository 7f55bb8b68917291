"""Traffic changes: which versions answer, with which shares, which are shadows, and which key decides.

The release store alone is read and written, so the serving process can do it too. What serves follows within a second;
ledger and registry follow by whoever may import them: `ml_platform.promotion.promote.sync_registry`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.releases import ReleaseStore


class TrafficChange(msgspec.Struct, frozen=True, kw_only=True):
    """The complete set of what an endpoint serves from now on: what is not in it is removed.

    `shares` are of the traffic, by version, and add up to 1; `shadows` are scored and logged and never answer. `key` is
    the input whose value decides which version answers (the model's id when None). `names` are Databricks' names of
    served entities. `model` is needed for a new endpoint that is not called as its model. `expected_revision` is the
    one that the decision was based on (0: none yet), None for whatever is there.
    """

    shares: Mapping[int, float]
    shadows: Sequence[int] = ()
    key: str | None = None
    names: Mapping[int, str] = {}
    model: str | None = None
    expected_revision: int | None = None


WHOLE: Final = "withdraw the endpoint instead, if nothing is to answer"


def set_traffic(store: ReleaseStore, name: str, change: TrafficChange, *, by: str, reason: str) -> Endpoint:
    """Set the targets of an endpoint, all or nothing; what serves already makes no new revision.

    Parameters
    ----------
    store
        Holds the endpoint, and every version that was registered or released.
    name
        Of the endpoint: the model's name, or one of its own.
    change
        The targets.
    by, reason
        For the endpoint document and the ledger.

    Returns
    -------
    Endpoint
        The document as published, or the present one when it says the same.

    Raises
    ------
    ReleaseConflict
        When somebody else changed the endpoint since `expected_revision`: nothing was written.
    LookupError
        When the store does not know a version, or not its bundle.
    BundleRefused
        When a bundle is not what its digest says.
    ValueError
        When shares do not add up to 1, a version is there twice, no input is called `key`, the reason is empty, or the
        endpoint is another model's.

    Examples
    --------
    >>> import tempfile
    >>> set_traffic(ReleaseStore(tempfile.mkdtemp()), "churn", TrafficChange(shares={3: 1.0}), by="ann", reason="try")
    Traceback (most recent call last):
    LookupError: churn: no version 3 in the release store; there are none
    """
    if not reason.strip():
        raise ValueError(f"{name}: a change of traffic wants a reason; it goes into the ledger")
    if twice := sorted(set(change.shares) & set(change.shadows)):
        raise ValueError(f"{name}: version {twice[0]} is to answer and to be a shadow; choose one")
    if not change.shares:
        raise ValueError(f"{name}: wanted at least one version that answers; {WHOLE}")
    if zero := [version for version, share in change.shares.items() if not 0 < share <= 1]:
        raise ValueError(f"{name}: wanted shares above 0 and up to 1, found {change.shares[zero[0]]:g} for {zero[0]}")
    current = store.document(name)
    model = change.model or (current.model if current else name)
    if name != model and store.versions(name):
        raise ValueError(f"'{name}' is a model of its own; an endpoint for versions of '{model}' wants another name")
    known = store.versions(model)
    if absent := sorted({*change.shares, *change.shadows} - set(known)):
        there = ", ".join(map(str, known)) or "none"
        raise LookupError(f"{model}: no version {absent[0]} in the release store; there are {there}")
    targets = [
        Target(version=version, digest=known[version], share=share, name=change.names.get(version))
        for version, share in sorted(change.shares.items())
    ]
    targets += [
        Target(version=version, digest=known[version], share=0.0, mode="shadow", name=change.names.get(version))
        for version in sorted(set(change.shadows))
    ]
    return store.publish(
        model,
        targets,
        reason=reason,
        by=by,
        expected_revision=change.expected_revision,
        action="traffic",
        key=change.key,
        own_name=name,
    )


def withdraw(store: ReleaseStore, name: str, *, by: str, reason: str, expected_revision: int | None = None) -> Endpoint:
    """Take an endpoint out of service. Its bundles and history stay, and a rollback puts it back.

    Raises
    ------
    LookupError
        When nothing of this name serves.
    ReleaseConflict
        When somebody else changed the endpoint since `expected_revision`.
    """
    current = store.endpoint(name)
    if current is None:
        there = ", ".join(store.endpoints()) or "none"
        raise LookupError(f"{name}: nothing of this name serves; there are {there}")
    expected = current.revision if expected_revision is None else expected_revision
    return store.publish(
        current.model,
        (),
        reason=reason,
        by=by,
        expected_revision=expected,
        action="withdrawal",
        own_name=current.own_name,
    )


def retire_endpoint(store: ReleaseStore, name: str, model: str, *, by: str, reason: str) -> Endpoint:
    """Take an endpoint out of service for good: the server says that its model was retired.

    Bundles and history stay. An endpoint that never served is retired too, and one that was is left as it is.

    Raises
    ------
    ReleaseConflict
        When somebody else changed the endpoint meanwhile.
    ValueError
        When the endpoint is another model's.
    """
    current = store.document(name)
    if current is not None and current.is_retired:
        return current
    return store.publish(
        model,
        (),
        reason=reason,
        by=by,
        expected_revision=current.revision if current else 0,
        action="retirement",
        own_name=name,
    )
