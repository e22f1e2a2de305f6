"""Serving the page: one process, this machine only, nothing fetched from elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ._gradio import gradio
from .desk import Desk
from .digits_tab import DigitsTab
from .limits import Limits
from .sound_tab import SoundTab
from .style import CSS, theme

_HEAD = """
<div class="mlass-head"><h1>mlass</h1><p>Source separation as probabilistic programming: say how
sources mix, choose how to infer them, and watch.</p></div>
"""


@dataclass(frozen=True)
class AppConfig:
    """host, port: where the page is served. browser: whether it is opened there. limits: what it
    takes. Raises OptionError on a port that cannot be."""

    host: str = "127.0.0.1"
    port: int = 7860
    browser: bool = True
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not isinstance(self.port, int) or not 1 <= self.port <= 65_535:
            raise OptionError(f"a port is a whole number from 1 to 65535, got {self.port!r}.")


@contextmanager
def serving(config: AppConfig = AppConfig()) -> Iterator[str]:
    """Serve the page while the `with` statement runs; gives its address.

    Uploads and results lie in a folder of their own, which is removed at the end. Raises MlassError
    where Gradio is missing, BundleError without the bundle of digits, and OptionError where the
    port is taken.
    """
    gr = gradio()
    folder = tempfile.TemporaryDirectory(prefix="mlass-app-", ignore_cleanup_errors=True)
    with folder as home, _environment(home, config.host):
        page = make_page(gr, Desk(Path(home), config.limits))
        try:
            yield _launch(page, gr, config)
        finally:
            page.close(verbose=False)


def make_page(gr: Any, desk: Desk) -> Any:
    """The page as Gradio's Blocks."""
    limits = desk.limits
    page = gr.Blocks(
        title="mlass: source separation",
        analytics_enabled=False,
        delete_cache=(600, limits.kept_seconds),
    )
    with page:
        gr.HTML(_HEAD, padding=False)
        with gr.Tabs():
            with gr.Tab("Digits"):
                DigitsTab(gr, desk).build()
            with gr.Tab("Sound") as sound:
                SoundTab(gr, desk).build(sound)
    page.queue(max_size=limits.waiting)
    return page


def _launch(page: Any, gr: Any, config: AppConfig) -> str:
    try:
        _, url, _ = page.launch(
            server_name=config.host, server_port=config.port, inbrowser=config.browser,
            prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False,
            max_file_size=config.limits.upload_bytes, theme=theme(gr), css=CSS, footer_links=[],
            run_history=False, enable_monitoring=False, mcp_server=False,
        )  # fmt: skip
    except OSError as error:
        raise OptionError(
            f"port {config.port} of {config.host} cannot be used ({error}). Take another one: "
            f"mlass app --port {config.port % 65_535 + 1}"
        ) from error
    return str(url)


@contextmanager
def _environment(home: str, host: str) -> Iterator[None]:
    """Gradio keeps uploads in the folder that one variable names, and asks the page whether it is
    there, which must not go through a proxy."""
    direct = ",".join(filter(None, (os.environ.get("no_proxy", os.environ.get("NO_PROXY")), host)))
    wanted = {"GRADIO_TEMP_DIR": home, "NO_PROXY": direct, "no_proxy": direct}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
