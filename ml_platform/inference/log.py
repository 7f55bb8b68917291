"""The inference log's records: every answered prediction is one of them before its answer leaves.

`ml_platform.inference.segments` writes them, `ml_platform.inference.ingest_log` moves them into the lake.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.inference.contract import Violation
from ml_platform.inference.segments import SEGMENT_BYTES, SYNC_SECONDS, SegmentLog

SHADOW = "__shadow"  # added to the model's name: where what shadow versions said is logged, apart from the answers


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One answered prediction: what was asked, what the model saw, what it said.

    `score` is what the model's graph gave (a list for multiclass), `features` every column of its matrix by name,
    before encoding; `time` the instant of the answer, `as_of` the instant features were looked up for (both UTC).
    """

    request_id: str
    row: int
    id: str | None
    model: str
    version: int
    digest: str
    time: datetime
    as_of: datetime
    caller: str | None
    inputs: Any
    features: dict[str, Any]
    score: float | list[float]
    prediction: bool | float | str
    flags: Sequence[Violation] = ()  # what of the inputs' contract the row breaks and was answered all the same
    sample_weight: float = 1.0  # answered rows that it stands for


class Batch(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Many answered predictions of one request by column, on one line: what `rows` records say, encoded once.

    `inputs` is the body as it was sent, on one line: `{"rows": [...]}`. `as_of` counts microseconds since 1970 (UTC).
    Every list has a value for each row, but `ids` is empty where the model names no id.
    """

    batch: int  # number of rows; tells this line from a `Record`
    request_id: str
    model: str
    version: int
    digest: str
    time: datetime
    caller: str | None
    ids: list[str | None]
    as_of: list[int]
    inputs: msgspec.Raw
    columns: tuple[str, ...]  # the model's features
    matrix: (
        bytes  # what the model saw, rows × features in float64, little-endian (as base64: a sixth of the text's cost)
    )
    categories: dict[str, list[Any]]  # the features that are codes in the matrix, as they were before encoding
    score: list[Any]
    prediction: list[Any]
    flags: Sequence[Violation] = ()
    sample_weight: float = 1.0


class InferenceLog(SegmentLog):
    """Appends prediction records, `Record` or `Batch`, below `folder/<model>/`.

    Parameters
    ----------
    folder
        The platform's `inference_log_dir`.
    segment_bytes, sync_seconds
        See `SegmentLog`.

    Examples
    --------
    >>> import tempfile
    >>> from datetime import UTC, datetime
    >>> folder = Path(tempfile.mkdtemp())
    >>> now = datetime(2013, 7, 1, 12, tzinfo=UTC)
    >>> record = Record(
    ...     request_id="r1", row=0, id="a", model="flight_delay", version=1, digest="d", time=now, as_of=now,
    ...     caller=None, inputs={"carrier": "UA"}, features={"carrier": "UA"}, score=0.25, prediction=False,
    ... )
    >>> log = InferenceLog(folder)
    >>> log.append("flight_delay", [record])
    >>> log.close()
    >>> [path.read_bytes().count(b"\\n") for path in folder.glob("flight_delay/*.jsonl")]
    [1]
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, sync_seconds: float = SYNC_SECONDS) -> None:
        super().__init__(folder, "inference log", segment_bytes=segment_bytes, sync_seconds=sync_seconds)
