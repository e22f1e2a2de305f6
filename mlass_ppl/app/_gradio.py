"""Gradio, the library of the extra [app], imported when a page is made."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from ..errors import MlassError

_OLDEST = 6


def gradio() -> Any:
    """The module, with its reports home switched off.

    Raises MlassError where it is missing, broken or too old.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    install = 'Install the extra [app]: pip install "mlass-ppl[app]".'
    try:
        module = import_module("gradio")
    except ImportError as error:
        raise MlassError(f"the page needs Gradio ({error}). {install}") from error
    if int(module.__version__.partition(".")[0]) < _OLDEST:
        raise MlassError(
            f"the page needs Gradio {_OLDEST} or newer, got {module.__version__}. {install}"
        )
    return module
