"""Notebooks over the project: the lake, features, training sets and models in a few lines.

    from ml_platform.notebooks import open_model

    model = open_model("flight_delay")
    model.predict(rows, explain=5)
"""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ml_platform.notebooks.model_handle import ModelHandle, open_model

__all__ = ["ModelHandle", "open_model"]


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Register `%sql` and `%%sql`: `%load_ext ml_platform.notebooks`."""
    from ml_platform.notebooks.sql_cells import load_ipython_extension as load

    load(shell)


__getattr__, __dir__ = lazy_exports(__name__, {"model_handle": ["ModelHandle", "open_model"]})
