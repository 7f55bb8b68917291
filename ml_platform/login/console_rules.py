"""Which role each request to the console and the prediction server needs; the server has rules of its own, too."""

import re

from ml_platform.login.judgement import Judgement

# Questions that are asked by POST: predictions by each protocol, look-ups of features, comparisons.
_QUESTIONS = re.compile(
    r"/predict/.+|/invocations|/serving-endpoints/[^/]+/invocations|/v2/models/.+/infer|/features/[^/]+/lookup|"
    r"/get-online-features"
)


def of_request(method: str, path: str) -> Judgement:
    """What a request needs: reading is a viewer's, asking for predictions a launcher's, changing an editor's.

    Examples
    --------
    >>> of_request("GET", "/models/m/console").role, of_request("POST", "/predict/m").role
    ('viewer', 'launcher')
    """
    action = f"{method} {path}"
    if method in {"GET", "HEAD"}:
        return Judgement("viewer", action)
    if method == "POST" and _QUESTIONS.fullmatch(path):
        return Judgement("launcher", action)
    return Judgement("editor", action, is_change=True)
