"""The whole recipe of the digit bundle on blobs: in order, once, and on from where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import blobs
from typer.testing import CliRunner

from mlass_ppl import Auto, Learned, additive, chain, fine, load, separate
from mlass_ppl.cli import app
from mlass_ppl.codecs import ImageVQVAEConfig
from mlass_ppl.errors import OptionError
from mlass_ppl.train import recipe
from mlass_ppl.train.recipe import Sizes, make_digits

CONFIG = ImageVQVAEConfig(size=12, alphabet=8, latent=4, encoder=8, decoder=8)
TINY = Sizes(
    CONFIG, codec=1, prior=1, continued=1, tables=60, middle=10, fine=12, alphabets=40,
    fine_tables=60, sources=(2,), separated=48, held=8, candidates=3, refiner=1, width=4,
)  # fmt: skip
STEPS = (
    "codec", "prior", "tables of chain(2)", "tables of chain(3)", "tables of star(2)",
    "tables of star(3)", "tables of joint(3)", "continued prior", "alphabets",
    "tables of additive(2)", "tables of fine(2)", "refiner",
)  # fmt: skip
MODULES = ("digits", "continue_digits", "alphabets", "make_refiner")
TRAINERS = ("make_codec", "make_prior", "continue_digits", "make_alphabets", "make_refiner")


@pytest.fixture(scope="module", autouse=True)
def _digits() -> Iterator[None]:
    """MNIST's digits are blobs, of three classes."""
    sizes = {"train": 130, "validation": 40}
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(
                f"mlass_ppl.train.{module}.mnist_images",
                lambda split, root: blobs(sizes[split], len(split)),
            )
        patch.setattr(
            "mlass_ppl.train.continue_digits.mnist_labels",
            lambda split, root: torch.arange(sizes[split]) % 3,
        )
        patch.setattr("mlass_ppl.train.continue_digits.LABEL_EPOCHS", 1)
        yield


def make(folder: Path, **options: Any) -> list[tuple[str, bool]]:
    """The steps, and whether each was done before."""
    told: list[tuple[str, bool]] = []
    options = {"sizes": TINY, "run": folder / "run", "device": "cpu"} | options
    make_digits(folder / "b", **options, told=lambda *step: told.append(step))
    return told


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "b").iterdir()}


def timeless(value: Any) -> Any:
    """Facts without what the clock said; with the sums of all weights."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "threads")}
    return [timeless(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert make(folder) == [(step, False) for step in STEPS]
    return folder


def test_every_step_is_done_once_and_in_order(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, made = load(whole / "b"), files(whole)
    assert set(bundle.codecs) == {"middle", "fine"}
    assert len(bundle.card["priors"]["digit"]["continued"]) == 1
    for program in (chain(3), additive(5), fine(2)):
        graph = recipe.compile_program(program)
        assert not bundle.lacking(graph, graph.factors)
    found = separate(blobs(2, 7), additive(2), bundle, infer=Auto(), refine=Learned())
    assert torch.isfinite(found["source_1"]).all()
    for name in TRAINERS:
        monkeypatch.setattr(recipe, name, lambda *_, **__: pytest.fail("made again"))
    monkeypatch.setattr(recipe, "count_into", lambda *_, **__: pytest.fail("counted again"))
    assert make(whole) == [(step, True) for step in STEPS]
    assert files(whole) == made


@pytest.mark.parametrize("stop", ["make_prior", "continue_digits", "make_refiner"])
def test_it_goes_on_where_it_stopped(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """Stopped before each step that takes long, it ends where it would have."""
    with monkeypatch.context() as patch:
        patch.setattr(recipe, stop, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
    later = make(tmp_path)
    assert [step for step, _ in later] == list(STEPS)
    assert [before for _, before in later] == sorted((b for _, b in later), reverse=True)
    first = next(place for place, (_, before) in enumerate(later) if not before)
    assert first == STEPS.index(
        {
            "make_prior": "prior", "continue_digits": "continued prior",
            "make_refiner": "refiner",
        }[stop]
    )  # fmt: skip
    one, other = (load(path / "b").card for path in (whole, tmp_path))
    assert timeless(one) == timeless(other)


def test_a_bundle_of_other_sizes_is_not_gone_on_with(whole: Path) -> None:
    made = files(whole)
    for options, message in (
        ({"seed": 1}, r"has codec made with seed 0 instead of 1\. Give another folder"),
        ({"sizes": replace(TINY, prior=2)}, "has prior made with epochs 1 instead of 2"),
        ({"sizes": replace(TINY, fine=16)}, "has alphabets made with fine 12 instead of 16"),
        ({"sizes": replace(TINY, refiner=3)}, "has refiner made with epochs 1 instead of 3"),
    ):
        with pytest.raises(OptionError, match=message):
            make(whole, **options)
    assert files(whole) == made


def test_it_begins_anew_when_told_to(tmp_path: Path) -> None:
    make(tmp_path)
    again = make(tmp_path, sizes=replace(TINY, prior=2), resume=False)
    assert again == [(step, False) for step in STEPS]
    assert load(tmp_path / "b").card["priors"]["digit"]["epochs"] == 2


def test_the_command(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "QUICK", TINY)
    line = f"train mnist --quick --device cpu --out {tmp_path / 'b'} --run {tmp_path / 'run'}"
    found = CliRunner().invoke(app, line.split())
    assert found.exit_code == 0, found.output
    for step in STEPS:
        assert f"{step}: done" in found.output
    assert "## Refiner" in (tmp_path / "b" / "README.md").read_text("utf-8")
    found = CliRunner().invoke(app, line.split())
    for step in STEPS:
        assert f"{step}: was there" in found.output
    found = CliRunner().invoke(app, [*line.split(), "--seed", "3"])
    assert found.exit_code == 2
    assert "seed 0 instead of 3" in found.output
