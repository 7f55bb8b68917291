"""Where versions that share the traffic want different things of the same request."""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from ml_platform.registry.input_contract import wanted_of
from ml_platform.registry.manifest import Endpoint, Input
from ml_platform.registry.releases import ReleaseStore


class VersionInputs(NamedTuple):
    """The inputs of one version."""

    version: int
    inputs: Sequence[Input]
    is_live: bool = True

    def get(self, name: str | None) -> Input | None:
        """An input by its name."""
        return next((field for field in self.inputs if field.name == name), None)


def differs(first: Input, second: Input) -> bool:
    """Whether some value is answered as one input and refused, or flagged, as the other."""
    return (wanted_of(first), first.required, first.flagged) != (wanted_of(second), second.required, second.flagged)


def wanted_or_nothing(field: Input) -> str:
    """What an input's value must be, if anything must be sent."""
    return wanted_of(field) + ("" if field.required else " or nothing")


def unlike_inputs(versions: Sequence[VersionInputs]) -> list[str]:
    """What a request that one version answers may lack for another, in a sentence each.

    Examples
    --------
    >>> carrier, aircraft = (Input(name=name, type="string") for name in ("carrier", "aircraft"))
    >>> unlike_inputs([VersionInputs(3, [carrier]), VersionInputs(4, [carrier, aircraft])])
    ['version 4 requires aircraft (a string), which version 3 does not read']
    """
    told = []
    for own, other in permutations(versions, 2):
        for field in own.inputs:
            counterpart = other.get(field.name)
            if counterpart is None and field.required:
                wanted = f"{field.name} ({wanted_of(field)})"
                told.append(f"version {own.version} requires {wanted}, which version {other.version} does not read")
            elif counterpart is not None and own.version > other.version and differs(field, counterpart):
                told.append(
                    f"version {own.version} wants {field.name} to be {wanted_or_nothing(field)}, version "
                    f"{other.version} {wanted_or_nothing(counterpart)}"
                )
    return told


def unlike_live_inputs(store: ReleaseStore, endpoint: Endpoint) -> list[str]:
    """The same of the versions that share an endpoint's traffic, with what follows from it for clients."""
    live = [target for target in endpoint.targets if target.mode == "live" and target.share > 0]
    if len(live) < 2:
        return []
    told = unlike_inputs([VersionInputs(one.version, store.load_manifest(one.digest).inputs) for one in live])
    if told:
        told.append("requests should have the inputs of all of them: each version passes over what only others read")
    return told
