"""`mlass app`: a page in the browser to separate digits and sounds, and to watch."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from ._common import say, sentences, settle_threads

_LOCAL = ("127.0.0.1", "localhost", "::1")


def app(
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to serve at. Others than this machine's are warned of.")
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Serve a page that separates digits and sounds and shows every token while it is found.

    Works offline, with the bundles that are installed; needs the extra [app]. Ctrl-C ends it.
    """
    with sentences():
        settle_threads()
        from ..app import AppConfig, serving

        if host not in _LOCAL:
            say(
                f"--host {host}: everyone who reaches this machine can use the page, and there is "
                "no password. Uploads are read, never run.",
                style="yellow",
                stderr=True,
            )
        with serving(AppConfig(host, port, browser)) as url:
            say(f"The page is at {url}  (Ctrl-C ends it)")
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                say("Ended; uploads and results are removed.")
