"""The page in a real browser: digits and sounds from the first click to the downloaded archive.

With MLASS_SCREENSHOTS=FOLDER the pictures of the documentation are written there on the way.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zipfile import ZipFile

import pytest
from PIL import Image

from mlass_ppl import MlassError, OptionError, list_bundles
from mlass_ppl.app import AppConfig, serving
from mlass_ppl.app._gradio import gradio
from mlass_ppl.app.sounds import Listening
from mlass_ppl.audio import write_audio

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120_000
"""Milliseconds that a busy machine may take for a step."""


def missing() -> str:
    """Why these tests cannot run here; nothing where they can."""
    try:
        gradio()
        import playwright.sync_api  # noqa: F401
    except (MlassError, ImportError) as error:
        return str(error)
    if not Path(CHROMIUM).is_file():
        return "chromium is not installed"
    names = {folder.name for folder in list_bundles()}
    return "" if names >= {"mnist", "spoken"} else "the bundles `mnist` and `spoken` are not here"


_MISSING = missing()
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=_MISSING)


@dataclass
class Visit:
    """A page that is open, and every address that it asked for."""

    page: Any
    port: int
    asked: list[str] = field(default_factory=list)

    def shows(self, selector: str, text: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE)

    def choose(self, selector: str, option: str) -> None:
        self.page.locator(f"{selector} input").click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def foreign(self) -> list[str]:
        own = f"127.0.0.1:{self.port}"
        return [
            url
            for url in self.asked
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != own
        ]

    def picture(self, name: str) -> None:
        """Keep a picture of the page where they are asked for, small enough for a repository."""
        if (folder := os.environ.get("MLASS_SCREENSHOTS")) is None:
            return
        path = Path(folder) / f"app-{name}.png"
        self.page.mouse.move(2, 2)
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=path, full_page=True)
        Image.open(path).convert("RGB").save(path, optimize=True)
        assert path.stat().st_size < 200_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page that is served; nothing may be asked of other machines meanwhile, and nothing stay."""
    dialled: list[str] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, to: Any) -> None:
        dialled.extend([to[0]] if isinstance(to, tuple) else [])
        connect(self, to)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", noted)
        patch.setenv("HTTP_PROXY", "http://192.0.2.1:9")  # no machine has this address
        with serving(AppConfig(port=port, browser=False)) as url:
            home = Path(os.environ["GRADIO_TEMP_DIR"])
            yield url
            assert home.is_dir()
    assert not home.exists()
    assert set(dialled) <= {"127.0.0.1", "localhost"}


@pytest.fixture(scope="module")
def visit(address: str) -> Iterator[Visit]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        page.set_default_timeout(PATIENCE)
        out = Visit(page, urlsplit(address).port or 0)
        page.on("request", lambda request: out.asked.append(request.url))
        page.goto(address)
        yield out
        browser.close()
    assert len(out.asked) > 20
    assert out.foreign() == []


def archive(visit: Visit, button: str, folder: Path) -> list[str]:
    """The files of the archive that a button downloads, unpacked to a folder."""
    with visit.page.expect_download() as download:
        visit.page.locator(button).click()
    with ZipFile(download.value.path()) as found:
        found.extractall(folder)
        return found.namelist()


def test_digits_are_picked_and_separated_token_by_token(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    digits = page.locator("#digits-gallery .grid-container button")
    digits.nth(3).click()
    page.wait_for_function("document.querySelectorAll('#digits-slots img').length == 2")
    digits.nth(18).click()
    page.wait_for_function("document.querySelectorAll('#digits-slots img').length == 3")
    visit.choose("#digits-shape", "chain")
    visit.shows("#digits-why", "Engines left out: Truncated")
    visit.choose("#digits-engine", "BP")
    visit.picture("digits")
    if "MLASS_SCREENSHOTS" not in os.environ:  # in which each token is seen
        page.get_by_text("More settings").first.click()
        page.locator("#digits-every").get_by_role("checkbox").uncheck()
    graph = page.locator("#digits-graph img")
    assert graph.get_attribute("alt") == "the graph chain(2)"
    page.locator("#digits-run").click()
    visit.shows("#digits-status", "of 49")
    page.wait_for_function(
        "/Token (1[5-9]|[234].) of 49|49 of 49/"
        ".test(document.querySelector('#digits-status').innerText)"
    )
    visit.picture("tokens")
    visit.shows("#digits-status", "49 of 49 tokens")
    visit.shows("#digits-stage", "PSNR")
    assert page.locator("#digits-stage img").count() == 6  # two digits, their mixture, and back
    visit.picture("result")
    names = archive(visit, "#digits-download", tmp_path)
    assert {"source_1.png", "source_2.png", "mixture.png", "result.json"} <= set(names)
    assert Image.open(tmp_path / "source_1.png").size == (28, 28)
    for tab, inside in (("Evidence", "#digits-evidence"), ("Candidates", "#digits-tree")):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"{inside} img").wait_for(state="visible")


def test_a_digit_is_drawn(visit: Visit) -> None:
    page = visit.page
    page.locator("#digits-clear").click()
    page.wait_for_function("document.querySelectorAll('#digits-slots img').length == 0")
    page.get_by_role("tab", name="Draw").click()
    page.locator("#digits-canvas").get_by_label("Brush").first.click()
    canvas = page.locator("#digits-canvas canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across, down - 70)
    page.mouse.down()
    page.mouse.move(across + 10, down + 70, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.locator("#digits-drawn").click()
    page.wait_for_function("document.querySelectorAll('#digits-slots img').length == 2")


def test_a_bad_file_is_told(visit: Visit, tmp_path: Path) -> None:
    page, bad = visit.page, tmp_path / "digit.png"
    bad.write_text("this is no image")
    page.get_by_role("tab", name="Upload").click()
    page.locator("#digits-file input[type=file]").set_input_files(bad)
    visit.shows("#digits-slots", "'digit.png' is no image that can be read")
    page.get_by_role("tab", name="Pick").click()


def test_a_sound_is_separated(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.get_by_role("tab", name="Sound").click()
    page.get_by_label("Spoken digits").click()
    page.locator("#sound-stems").get_by_text("jackson").wait_for()
    bad = tmp_path / "song.wav"
    bad.write_text("this is no sound")
    page.locator("#sound-file input[type=file]").set_input_files(bad)
    visit.shows("#sound-problem", "song.wav")
    visit.shows("#sound-problem", "SignalError")
    voices = Listening()
    voices.make("spoken")
    assert voices.samples is not None
    write_audio(tmp_path / "voices.wav", voices.samples[:, : voices.rate // 2], voices.rate)
    page.locator("#sound-file input[type=file]").set_input_files(tmp_path / "voices.wav")
    visit.shows("#sound-problem", "voices.wav: 0.5 s")
    page.locator("#sound-run").click()
    visit.shows("#sound-status", "Done")
    page.locator("#sound-picture img").wait_for(state="visible")
    page.locator("#sound-stem-2").wait_for(state="visible")
    visit.picture("sound")
    names = archive(visit, "#sound-download", tmp_path / "out")
    assert set(names) == {
        "george.wav", "jackson.wav", "mixture.wav", "spectrograms.png", "result.json"
    }  # fmt: skip


def test_a_port_that_is_taken_is_told(address: str) -> None:
    port = urlsplit(address).port or 0
    with (
        pytest.raises(OptionError, match=f"--port {port + 1}"),
        serving(AppConfig(port=port, browser=False)),
    ):
        pass
