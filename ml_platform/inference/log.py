"""The records of the inference log: every prediction is logged before its answer is sent.

`ml_platform.segment_log.segments` writes them, `ml_platform.inference.ingest_log` ingests them into the lake.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.registry.input_contract import Violation
from ml_platform.segment_log.segments import SEGMENT_BYTES, SYNC_SECONDS, SegmentLog

SHADOW = "__shadow"  # suffix of a model's name for the separate log of its shadow versions


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One prediction: what was sent, the features that the model saw, and its answer.

    `score` is the output of the model's graph (a list for multiclass), `features` every column of its matrix by name,
    before encoding, `time` the instant of the answer, `as_of` the instant for which features were looked up (both UTC).
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
    prediction: bool | int | float | str
    flags: Sequence[Violation] = ()  # violations of the inputs' contract in spite of which the row was answered
    sample_weight: float = 1.0  # number of answered rows that it represents


class Batch(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Many predictions of one request by column, on one line; it says the same as one `Record` per row.

    `inputs` is the body as it was sent, on one line: `{"rows": [...]}`. `as_of` is in microseconds since 1970 (UTC).
    Every list has a value for each row, but `ids` is empty when the model has no id.
    """

    batch: int  # number of rows; as first key it distinguishes this line from a `Record`
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
    # The model's input, rows × features in little-endian float64; base64 costs a sixth of writing numbers as text.
    matrix: bytes
    categories: dict[str, list[Any]]  # values, before encoding, of the features that are codes in the matrix
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
