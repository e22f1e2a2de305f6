"""Players of sound in a notebook."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from typing import Any

from torch import Tensor

from ..errors import MlassError
from ._libraries import soundfile


def player(signal: Tensor, rate: int) -> Any:
    """An `IPython.display.Audio` of a signal [channels, T]; what is beyond full scale is turned
    down to it. Raises MlassError where IPython is not installed."""
    try:
        from IPython.display import Audio
    except ImportError as error:
        raise MlassError(f"players need IPython ({error}): pip install ipython.") from error
    buffer = io.BytesIO()
    level = max(1.0, float(signal.abs().max()))
    columns = (signal / level).T.contiguous().numpy()
    soundfile().write(buffer, columns, rate, format="FLAC")  # half of a WAV, and every sample
    return Audio(data=buffer.getvalue(), rate=rate)


def players_html(said: str, signals: Mapping[str, Tensor], rate: int) -> str:
    """Text and below it a player of each signal {name: [channels, T]}."""
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{player(signal, rate)._repr_html_()}</td></tr>"
        for name, signal in signals.items()
    )
    return f"<pre>{escape(said)}</pre><table>{cells}</table>"
