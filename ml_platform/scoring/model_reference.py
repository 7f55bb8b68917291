"""Which version is meant: `flight_delay`, `flight_delay@champion`, `flight_delay@v3`."""

import re
from typing import NamedTuple

from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.manifest import Target, champion_target
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.yaml_documents import nearest

_HOW = {
    "ensemble": "their weighted mean",
    "pipeline": "one after another, each step from the table of the one before",
    "route": "each member from a SELECT of its segment",
}
CHAMPION = "champion"
_VERSION = re.compile(r"(?:v|version-?)?(\d+)")


class ModelReference(NamedTuple):
    """A model and one of its versions; the champion when that is None.

    Examples
    --------
    >>> ModelReference.read("flight_delay@v3"), ModelReference.read("flight_delay")
    (ModelReference(model='flight_delay', version=3), ModelReference(model='flight_delay', version=None))
    """

    model: str
    version: int | None

    @classmethod
    def read(cls, text: str) -> "ModelReference":
        """Read a reference (raises ValueError)."""
        model, separator, which = text.partition("@")
        number = _VERSION.fullmatch(which)
        if not is_name(model) or (separator and which != CHAMPION and number is None):
            raise ValueError(
                f"wanted a model, as in flight_delay, flight_delay@champion or flight_delay@v3; found {text!r}"
            )
        return cls(model, int(number[1]) if number else None)

    def resolve(self, store: ReleaseStore) -> Target:
        """The version's number and bundle.

        Raises
        ------
        LookupError
            When there is no such model or version, with those that there are.
        """
        versions = store.versions(self.model)
        if self.version is not None and self.version in versions:
            return Target(version=self.version, digest=versions[self.version])
        endpoint = store.endpoint(self.model) if self.version is None else None
        if endpoint is not None:
            return champion_target(endpoint)
        composed = CompositionStore(store).all().get(self.model) if not versions else None
        if composed is not None:
            raise LookupError(
                f"'{self.model}' is a composed endpoint, which answers requests only. Score each of its members, "
                f"{', '.join(composed.members)}, and put the columns `score` together ({_HOW[composed.kind]}); or send "
                f"the rows to /predict/{self.model}"
            )
        if not versions:
            known = sorted({*store.registered(), *store.names()})
            raise LookupError(
                f"there is no model '{self.model}' to score with{nearest(self.model, known)} "
                f"There are: {', '.join(known) or 'none; train one first'}"
            )
        listed = ", ".join(f"v{number}" for number in versions)
        if self.version is not None:
            raise LookupError(f"{self.model} has no version {self.version}; it has {listed}")
        raise LookupError(
            f"no version of {self.model} is released, so there is no champion: say which one, {self.model}@v"
            f"{max(versions)}. There are: {listed}"
        )
