"""How pictures are begun and become bytes: matplotlib's figures without pyplot, in the platform's colours."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREY, RED = "#2f6f9f", "#9aa5b1", "#c44e52"


def new_figure(width: float = 6.0, height: float = 4.2) -> tuple[Any, "Axes"]:
    """Make a figure of a size in inches, and its axes."""
    from matplotlib.figure import Figure  # not pyplot: that keeps figures alive and wants a display

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    return figure, figure.subplots()


def png_bytes(figure: Any) -> bytes:
    """Draw a figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
