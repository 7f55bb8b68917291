"""Whether an error says that the tracking server or its database is away, and how a person is told so."""

import sys

_STATUS_OF_OUTAGES = (408, 429, 500, 502, 503, 504)


def registry_outage(error: BaseException) -> str | None:
    """Say in a line what keeps MLflow away; None for an error of another kind.

    An error of MLflow about what was asked of it (a name that is wrong, a version that does not exist) is of another
    kind. Nothing is imported: who has not imported MLflow cannot have had an error of it.

    Examples
    --------
    >>> registry_outage(ValueError("no such version")) is None
    True
    """
    exceptions = sys.modules.get("mlflow.exceptions")
    if exceptions is not None and isinstance(error, exceptions.MlflowException):
        if error.get_http_status_code() not in _STATUS_OF_OUTAGES:
            return None
        return _in_words(error)
    if _is_from("requests.exceptions", "ConnectionError", error) or _is_from("requests.exceptions", "Timeout", error):
        return _in_words(error)
    if _is_from("sqlalchemy.exc", "OperationalError", error) or _is_from("sqlalchemy.exc", "InterfaceError", error):
        return _in_words(error)
    return None


def _is_from(module: str, name: str, error: BaseException) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(error, kind)


def _in_words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    return (
        f"the registry (MLflow) does not answer: {first[:300]}. What was already done holds; see that "
        "ML_PLATFORM_TRACKING_URI can be reached and is not locked by another process, then repeat the command"
    )
