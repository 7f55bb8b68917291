"""Instants of many keys as sorted integers that each encode a key and an instant: the latest is found by bisection."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

_PLACES = 2**62  # keys × instants that one integer can encode


class KeyedInstants:
    """The known instants of each key.

    Parameters
    ----------
    keys
        Key of each known instant, from 0.
    instants
        The instants, as ticks of one clock; at least one.
    number
        Above every key.

    Examples
    --------
    >>> known = KeyedInstants(np.array([0, 0, 1]), np.array([10, 20, 15]), 2)
    >>> known.latest(known.encode(np.array([0, 0, 1]), np.array([25, 5, 15]))).tolist()
    [1, -1, 2]
    """

    def __init__(self, keys: "Integers", instants: "Integers", number: int) -> None:
        self._steps: Integers | None = None
        self._first = int(instants.min())
        self._width = int(instants.max()) - self._first + 2
        if number * self._width > _PLACES:  # many keys over a long time: replace instants by their ranks
            self._steps = np.unique(instants)
            self._first, self._width = 0, len(self._steps) + 1
            instants = np.searchsorted(self._steps, instants)
        places = keys.astype(np.int64)
        places *= self._width
        places += instants
        places -= self._first - 1  # offset 0 stands for all instants before the first
        places.sort()
        self._places = places

    def encode(self, keys: "Integers", at: "Integers") -> "Integers":
        """Encode keys and instants that are asked for; sorted, they are by key and instant."""
        if self._steps is not None:
            at = np.searchsorted(self._steps, at, side="right") - 1
        at = np.clip(at, max(self._first - 1, -(2**63)), self._first + self._width - 2)
        encoded: Integers = keys.astype(np.int64) * self._width + (at - (self._first - 1))
        return encoded

    def latest(self, encoded: "Integers") -> "Integers":
        """Position, by key and instant, of the latest known instant that is not after each; -1 where there is none."""
        positions = np.searchsorted(self._places, encoded, side="right") - 1
        found = self._places[positions]
        seen = (found <= encoded) & (found // self._width == encoded // self._width)
        return np.where(seen, positions, -1)

    def instants(self, positions: "Integers") -> "Integers":
        """The known instants at some positions."""
        instants = self._places[positions] % self._width + (self._first - 1)
        return instants if self._steps is None else self._steps[instants]
