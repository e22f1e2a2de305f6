"""The figure that every drawing returns."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import OptionError


class Drawing(Figure):
    """A matplotlib figure without pyplot: no window, no global state; shows itself in notebooks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def render(self, kind: str, dpi: float = 108) -> bytes:
        """The picture as `kind` ("png", "svg" or "pdf"); the same figure gives the same bytes."""
        import matplotlib

        stamp: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "mlass", "svg.fonttype": "none"}):
            self.savefig(buffer, format=kind, dpi=dpi, metadata=stamp)
        return buffer.getvalue()

    def write(self, path: str | Path) -> Path:
        """Write a file of the kind that its ending says: .png, .svg or .pdf."""
        path = Path(path)
        kind = path.suffix.lower().lstrip(".")
        if kind not in ("png", "svg", "pdf"):
            raise OptionError(
                f"cannot draw to '{path.name}': expected a name ending in .png, .svg or .pdf."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.render(kind))
        return path


class Lines(Drawing):
    """Lines and text: a notebook shows it as SVG."""

    def _repr_svg_(self) -> str:
        return self.render("svg").decode("utf-8")


class Pixels(Drawing):
    """Images: a notebook shows it as PNG."""

    def _repr_png_(self) -> bytes:
        return self.render("png")
