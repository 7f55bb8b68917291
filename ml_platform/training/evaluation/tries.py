"""How often a holdout was used to choose: every challenger that the gate judged, written down for good.

Of many challengers that are no better than the champion, one looks better by chance; so the gate asks for more at every
further try on the same rows. A try belongs to the model (its digest), the metric, the rows and the champion it was
compared with: to judge the same again is no new try, and no record is ever removed.
"""

from datetime import UTC, datetime

import msgspec
import polars as pl

from ml_platform.atomic_files import locked, replace_file
from ml_platform.registry.manifest import Struct
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable


class Try(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One challenger, judged once."""

    model_digest: str
    metric: str
    reference: str  # model digest of the champion that it was compared with; empty for the naive baseline
    first: datetime  # of the compared rows' timestamps
    last: datetime
    judged_at: datetime


def count_try(
    store: ReleaseStore,
    model: str,
    *,
    model_digest: str,
    metric: str,
    reference: str,
    timestamps: pl.Series,
) -> float:
    """Write a try down, unless it is known, and say the how-manieth it is.

    Parameters
    ----------
    store
        Keeps one document of tries per model, beside what was released.
    model
        Its name.
    model_digest
        Of the challenger.
    metric
        Metric of the gate.
    reference
        Model digest of the champion, empty for the naive baseline.
    timestamps
        Of the compared rows (UTC), at least one.

    Returns
    -------
    float
        1 for the first, and for each other challenger that was judged before it against the same champion the share
        of these rows that lie in the span which that one was judged on: 2 for the second on the same holdout.

    Raises
    ------
    DocumentUnreadable
        When the document of tries is damaged.
    ValueError
        When there are no rows.
    """
    path = store.tries_path(model)
    first, last = timestamps.min(), timestamps.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        raise ValueError(f"{model}: wanted timestamps of the compared rows, found {timestamps.dtype}")
    own = Try(
        model_digest=model_digest,
        metric=metric,
        reference=reference,
        first=first,
        last=last,
        judged_at=datetime.now(UTC),
    )
    with locked(store.folder / "locks" / f"{model}.tries.lock"):
        tries = read_tries(store, model)
        known = [position for position, other in enumerate(tries) if _same(own, other)]
        if not known:
            replace_file(path, msgspec.json.format(msgspec.json.encode([*tries, own]), indent=1))
    before = tries[: known[0]] if known else tries
    spans = {
        (other.model_digest, other.metric): (other.first, other.last)
        for other in before
        if other.reference == reference and (other.model_digest, other.metric) != (model_digest, metric)
    }
    shared = sum(int(timestamps.is_between(start, end).sum()) for start, end in spans.values())
    return 1 + shared / len(timestamps)


def read_tries(store: ReleaseStore, model: str) -> tuple[Try, ...]:
    """Read every try of a model, oldest first.

    Raises
    ------
    DocumentUnreadable
        When the document is damaged.
    """
    path = store.tries_path(model)
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Try, ...])
    except FileNotFoundError:
        return ()
    except msgspec.MsgspecError as error:
        raise DocumentUnreadable(
            f"{path}: not a list of the gate's tries ({error}); restore it from a backup"
        ) from error


def _same(one: Try, other: Try) -> bool:
    return msgspec.structs.replace(one, judged_at=other.judged_at) == other
