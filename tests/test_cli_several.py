"""`mlass separate` on a program that observes several signals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import blobs, make_codec, make_gpt2
from typer.testing import CliRunner

from mlass_ppl.bundle import Bundle
from mlass_ppl.cli import app
from mlass_ppl.tables import Additive, count

STEREO = """
from mlass_ppl import mix, source
def stereo():
    a, b = source("a"), source("b")
    left = mix("left", a, b, weights=(0.7, 0.3))
    return left, mix("right", a, b, weights=(0.3, 0.7))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of a bundle that knows the tables of the program."""
    codec, scope = make_codec(), {}
    exec(STEREO, scope)
    bundle = Bundle("tiny", codec, {"blob": make_gpt2()}, smoothing=Additive(0.1))
    counts = count(scope["stereo"], codec, blobs(200), mixtures=300, kind=lambda source: "blob")
    return replace(bundle, counts=counts).save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def mlass(tmp_path, monkeypatch):
    """Runs a command line in an empty folder."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exit_code != code:
            raise AssertionError(f"exit code {result.exit_code}: {result.output}{result.exception}")
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def stereo(mlass, home):
    """A program of two observed signals, its bundle, and two pairs of files."""
    Path("stereo.py").write_text(STEREO)
    for i, (a, b) in enumerate(blobs(4, 5).view(2, 2, 12, 12) - 0.02):
        for site, weight in (("left", 0.7), ("right", 0.3)):
            pixels = (weight * a + (1 - weight) * b).clamp(0, 1)
            pixels[0] = pixels[-1] = pixels[:, 0] = pixels[:, -1] = 0  # a dark ground
            Image.fromarray((pixels * 255).round().to(torch.uint8).numpy()).save(f"{site}{i}.png")
    return ("--program", "stereo.py", "--bundle", home, "--candidates", 2, "--infer", "exact")


def png(path):
    return np.asarray(Image.open(path))


def pair(i: int) -> tuple[str, ...]:
    return ("--mixture", f"left=left{i}.png", "--mixture", f"right=right{i}.png")


def test_several_observed_signals(mlass, stereo):
    files = ("--mixture", "left=left0.png", "right=right0.png", *pair(1))  # both spellings
    mlass("separate", *files, *stereo, "--refine", "descent", "--out", "out")
    for i in range(2):
        folder = Path(f"out/left{i}")
        names = {"a.png", "b.png", "left.png", "right.png", "grid.png", "facts.json"}
        assert {file.name for file in folder.iterdir()} == names
        assert (png(folder / "right.png") == png(f"right{i}.png")).all()
        facts = json.loads((folder / "facts.json").read_text())
        assert facts["observed"] == {"left": f"left{i}.png", "right": f"right{i}.png"}
        assert np.isfinite(facts["mixture_error"])
    assert "kept" in mlass("separate", *pair(0), *stereo, "--out", "out").output
    mlass("separate", *pair(1), *stereo, "--refine", "descent", "--out", "alone")
    assert (png("alone/left1/a.png") == png("out/left1/a.png")).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("left0.png",), "'stereo' observes several signals, so that plain files do not say which"),
        ((), "expected image files to separate, or --mixture SITE=FILE; got none"),
        (("--mixture", "left=left0.png"), "no signal for 'right': 'stereo' observes"),
        (("--mixture", "centre=left0.png"), "does not observe 'centre'; expected a signal for"),
        (("--mixture", "left0.png"), "takes SITE=FILE, got 'left0.png'. Give --mixture left=FILE"),
        ((*pair(0), "--mixture", "left=left1.png"), "got left 2 times, right 1 times"),
        (("left0.png", *pair(0)), "plain files and --mixture were both given"),
    ],
)
def test_files_that_do_not_fit_the_observed_sites(mlass, stereo, arguments, sentence):
    result = mlass("separate", *arguments, *stereo, "--out", "out", code=2)
    assert sentence in result.output.replace("\n", " ")
    assert not Path("out").exists()


def test_a_file_of_several_that_cannot_be_read(mlass, stereo):
    arguments = ("--mixture", "left=left0.png", "--mixture", "right=nowhere.png")
    result = mlass("separate", *arguments, *pair(1), *stereo, "--out", "out", code=1)
    assert "no image file 'nowhere.png'" in result.output
    assert [folder.name for folder in Path("out").iterdir()] == ["left1"]
