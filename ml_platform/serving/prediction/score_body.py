"""Scores a body by one version, many rows by column and few row by row: the same for HTTP and for streams."""

from ml_platform.serving.inputs.shared_rows import SharedRows
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.score_columns import score_columns
from ml_platform.serving.prediction.score_rows import Scored, score_rows
from ml_platform.serving.stage_timer import StageTimer


def score_body(
    model: ServedModel,
    body: bytes,
    request_id: str,
    caller: str | None,
    *,
    stages: StageTimer | None = None,
    shared: SharedRows | None = None,
) -> Scored:
    """Decode, look up and score the rows of a body; few rows are decoded by `shared`, where several models score them.

    Raises
    ------
    InvalidRequest
        For a body that cannot be read, does not fit the signature, or from which features cannot be derived.
    OnlineStoreFailed
        When the online store cannot be read and the fallback is "fail".
    """
    if model.decoder.is_long(body):
        columns = model.decoder.decode_columns(body)
        if stages is not None:
            stages.mark("decode")
        try:
            own = model.decoder.own_rows(body)
            return score_columns(model, columns, own, request_id, caller, stages=stages)
        except (ValueError, ArithmeticError):
            pass  # some row is at fault: scoring row by row finds and names it
    rows = model.decoder.decode(body) if shared is None else shared.decode(model.decoder, body)
    if stages is not None:
        stages.mark("decode")
    return score_rows(model, rows, request_id, caller, stages=stages)
