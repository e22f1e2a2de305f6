"""Alphabets of mixtures: the shapes that name them, the recipe that fits them, its command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import SIZE, blobs, make_codec, make_gpt2
from typer.testing import CliRunner

from mlass_ppl.bundle import Bundle, load
from mlass_ppl.cli import app
from mlass_ppl.declare import compile_program
from mlass_ppl.errors import DataError, OptionError
from mlass_ppl.shapes import balanced, chain, joint
from mlass_ppl.train import alphabets as recipe
from mlass_ppl.train.alphabets import make_alphabets, mixed

FACTS = {"codec": {"psnr_db": 12.5}}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A bundle without further codecs, where MNIST's digits are blobs."""
    monkeypatch.setattr(recipe, "mnist_images", lambda split, root: blobs(90, len(split)))
    made = Bundle("tiny", make_codec(), {"blob": make_gpt2()}, card=FACTS)
    return made.count(chain(2), blobs(90), mixtures=50).save(tmp_path / "b")


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [chain, balanced])
def test_shapes_declare_the_codecs_of_their_mixtures(shape):
    graph = compile_program(shape(4, codec="fine", inner="middle"))
    keys = {name: graph.site(name).codec for name in graph.mixtures}
    assert keys.pop("mixture") == "fine"
    assert len(keys) == 2
    assert set(keys.values()) == {"middle"}
    graph = compile_program(shape(4))
    assert {graph.site(name).codec for name in graph.mixtures} == {None}


def test_joint_declares_the_codec_of_its_mixture():
    assert compile_program(joint(2, codec="fine")).site("mixture").codec == "fine"
    assert compile_program(joint(2)).site("mixture").codec is None


# --- the recipe ----------------------------------------------------------------------------------


def test_means_of_as_many_images_as_asked_for():
    images = blobs(50)
    signals = mixed(images, (1, 2), 30, seed=1)
    assert signals.shape == (60, 1, SIZE, SIZE)
    assert torch.equal(signals, mixed(images, (1, 2), 30, seed=1))
    assert (signals[:30, None] == images).flatten(2).all(2).any(1).all()  # of one: the images
    assert signals[30:].std() < 0.9 * signals[:30].std()  # of two: means
    for parts, number in (((0,), 1), ((), 1), ((2,), 0)):
        with pytest.raises(OptionError, match="at least 1"):
            mixed(images, parts, number)
    with pytest.raises(DataError, match="one or more images"):
        mixed(images[:0], (2,), 3)


def test_alphabets_are_added_and_tables_of_replaced_ones_dropped(folder):
    plain = set(load(folder).counts)
    options = {"middle": 8, "fine": 16, "mixtures": 60}
    bundle = make_alphabets(folder, **options)
    found = {key: codec.alphabet for key, codec in bundle.codecs.items()}
    assert found == {"middle": 8, "fine": 16}
    facts = bundle.card["codecs"]["fine"]
    assert facts["mixtures"] == 60
    assert facts["psnr_db"] > bundle.card["codecs"]["middle"]["psnr_db"]
    assert f"{facts['psnr_db']} dB" in (folder / "README.md").read_text("utf-8")
    program = chain(3, codec="fine", inner="middle")
    counted = bundle.count(program, blobs(90), mixtures=50)
    counted.save(folder)
    assert set(make_alphabets(folder, **options).counts) == set(counted.counts)  # as they were
    kept = make_alphabets(folder, **{**options, "fine": 12})
    assert plain < set(kept.counts) < set(counted.counts)
    assert not any("fine" in made.codecs for made in kept.counts)


def test_the_command_line_fits_alphabets(folder):
    arguments = ["train", "alphabets", "--bundle", str(folder), "--middle", "8", "--fine", "16"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "middle: 8 codes" in result.output
    assert "fine: 16 codes" in result.output
    assert load(folder).codecs["fine"].alphabet == 16
    result = CliRunner().invoke(app, ["train", "alphabets", "--bundle", str(folder / "none")])
    assert result.exit_code == 2
    assert "no bundle" in result.output
