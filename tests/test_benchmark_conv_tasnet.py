"""The supervised baseline: its chunks and scores by hand, and what a small training learns."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed (extra [sound])")

from mlass_ppl.data.audio import Activity, find_chunks, slakh  # noqa: E402
from mlass_ppl.errors import BundleError, DataError, MlassError, OptionError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RATE, SAMPLES = 22_050, 65_536
SMALL = {"kernel": 32, "filters": 32, "bottleneck": 16, "hidden": 32, "layers": 3, "stacks": 1}

try:
    import torchaudio.models  # noqa: F401
except Exception as error:  # a CUDA wheel beside a CPU torch fails with more than ImportError
    _MISSING = f"torchaudio does not import here: {error}"
else:
    _MISSING = ""


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def with_torchaudio(test: Any) -> Any:
    return pytest.mark.full(pytest.mark.skipif(bool(_MISSING), reason=_MISSING)(test))


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slakh's layout: low tones as bass, high tones as piano, bursts of noise as drums. The drums
    of each song pause for its second chunk, and one song has no bass."""
    root = tmp_path_factory.mktemp("songs")
    random = np.random.default_rng(0)
    for place, name in enumerate(("train/a", "train/b", "train/c", "validation/d", "test/e")):
        time = np.arange(5 * SAMPLES + 1_000) / RATE
        drums = random.normal(0, 0.3, len(time)) * ((time + 0.1 * place) % 0.5 < 0.1)
        drums[SAMPLES : 2 * SAMPLES] = 0
        stems = {
            "Drums": drums,
            "Bass": 0.2 * np.sin(2 * math.pi * (50 + 7 * place) * time),
            "Piano": 0.2 * np.sin(2 * math.pi * (900 + 90 * place) * time),
        }
        if name == "train/c":
            del stems["Bass"]
        folder = root / name
        (folder / "stems").mkdir(parents=True)
        for number, signal in enumerate(stems.values()):
            soundfile.write(folder / "stems" / f"S{number:02d}.flac", signal.clip(-1, 1), RATE)
        facts = {f"S{k:02d}": {"inst_class": stem} for k, stem in enumerate(stems)}
        (folder / "metadata.yaml").write_text(yaml.safe_dump({"stems": facts}), "utf-8")
    return root


def test_selection_is_that_of_find_chunks(songs: Path) -> None:
    from benchmarks.conv_tasnet.data import active_chunks, select

    chunks = select(songs, "train", 2, 6, seed=3)
    active = Activity(("bass", "drums"), seconds=SAMPLES / RATE)
    by_hand = find_chunks(slakh(songs).split("train"), active).sample(6, 3)
    assert chunks.places == by_hand.places
    assert chunks.places[:4] == select(songs, "train", 2, 4, seed=3).places
    assert chunks.places != select(songs, "train", 2, 6, seed=4).places
    assert chunks.frames == SAMPLES
    assert {chunks.tracks[place].name for place, _ in chunks.places} == {"a", "b"}
    assert all(start != SAMPLES for _, start in chunks.places)  # the drums pause there
    assert len(active_chunks(songs, "train", ("drums",))) == 3 * 4
    assert len(active_chunks(songs, "train", ("bass",))) == 2 * 5
    with pytest.raises(OptionError, match="must lie in"):
        select(songs, "test", 2, 100, seed=0)
    with pytest.raises(OptionError, match="2 to 4 sources"):
        select(songs, "test", 5, 1, seed=0)
    with pytest.raises(DataError, match="guitar"):
        select(songs, "test", 4, 1, seed=0)


def test_memory_holds_what_the_chunks_read(songs: Path) -> None:
    from benchmarks.conv_tasnet.data import in_memory, select

    chunks = select(songs, "train", 3, 3, seed=0)
    held = in_memory(chunks)
    assert held.shape == (3, 3, SAMPLES)
    assert held.dtype == torch.float16
    for row, chunk in zip(held, chunks, strict=True):
        truth = torch.stack([chunk[stem] for stem in ("bass", "drums", "piano")])
        torch.testing.assert_close(row.float(), truth, rtol=1e-3, atol=1e-6)


def test_soft_sdr_is_sdr_with_bounds() -> None:
    from benchmarks.conv_tasnet.train import soft_sdr
    from mlass_ppl.evaluate.audio import sdr

    stems = torch.randn(4, 2, 5_000)
    estimates = stems + 0.3 * torch.randn(4, 2, 5_000)
    np.testing.assert_allclose(soft_sdr(estimates, stems), sdr(estimates, stems), atol=0.01)
    assert bool((soft_sdr(stems, stems) > 40).all())
    stems[0, 1] = 0
    for start in (stems, torch.zeros_like(stems), estimates):
        guess = start.clone().requires_grad_()
        value = soft_sdr(guess, stems)
        value.sum().backward()
        assert value.isfinite().all()
        assert guess.grad is not None
        assert guess.grad.isfinite().all()
    assert soft_sdr(torch.zeros(1, 2, 9), torch.zeros(1, 2, 9)).tolist() == [[0.0, 0.0]]


def test_augmented_cuts_all_stems_alike() -> None:
    from benchmarks.conv_tasnet.train import TrainingConfig, augmented

    config = TrainingConfig(crop=0.5, gain_db=3.0)
    chunks = 1 + torch.arange(1_000.0).expand(64, 2, 1_000)
    places, gains = set(), []
    for _ in range(20):
        found = augmented(chunks, 1_000, config)
        assert found.shape == (64, 2, 500)
        gain = found[..., 1] - found[..., 0]  # a ramp of slope 1 shows gain and place
        starts = found[..., 0] / gain - 1
        assert float(starts.max() - starts.min()) < 0.5
        places.add(round(float(starts.mean())))
        gains.append(20 * gain.log10())
    assert len(places) > 10
    assert min(places) >= 0
    assert max(places) <= 500
    decibels = torch.stack(gains)
    assert float(decibels.abs().max()) <= 3.0 + 1e-3
    assert float(decibels.std()) == pytest.approx(6 / math.sqrt(12), rel=0.05)
    same = augmented(chunks, 1_000, TrainingConfig(crop=9.0, gain_db=0.0))
    assert torch.equal(same, chunks)


def test_mixed_draws_each_stem_by_itself() -> None:
    from benchmarks.conv_tasnet.train import mixed

    pools = [torch.arange(4.0)[:, None].expand(4, 3), 10 + torch.arange(2.0)[:, None].expand(2, 3)]
    found = mixed(pools, 8_000)
    assert found.shape == (8_000, 2, 3)
    pairs, counts = found[..., 0].unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[a, b] for a in (0.0, 1.0, 2.0, 3.0) for b in (10.0, 11.0)]
    assert float((counts - 1_000).abs().max()) < 5 * math.sqrt(1_000)


class _Leaky(nn.Module):
    """Estimates that do not know the stems: the mixture, scaled, and half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.8))

    def forward(self, mixtures: Tensor) -> Tensor:
        return torch.stack([self.scale * mixtures, 0.5 * mixtures], 1)


def test_scores_by_hand(songs: Path) -> None:
    from benchmarks.conv_tasnet.data import in_memory, select
    from benchmarks.conv_tasnet.evaluate import evaluate, table

    chunks = select(songs, "train", 2, 5, seed=1)
    found = evaluate(_Leaky(), chunks, batch_size=2)
    assert found == evaluate(_Leaky(), chunks, batch_size=5)
    truths = in_memory(chunks, dtype=torch.float64)
    mixture = truths.mean(1)
    error = (0.8 * mixture - truths[:, 0]).square().sum(1)
    by_hand = 10 * (truths[:, 0].square().sum(1) / error).log10()
    floor = 10 * (truths[:, 0].square().sum(1) / (mixture - truths[:, 0]).square().sum(1)).log10()
    rows = found["chunks"]
    np.testing.assert_allclose([row["sdr"]["bass"] for row in rows], by_hand, atol=1e-4)
    np.testing.assert_allclose([row["sdri"]["bass"] for row in rows], by_hand - floor, atol=1e-4)
    np.testing.assert_allclose([row["si_sdri"]["drums"] for row in rows], 0, atol=1e-4)
    summary = found["summary"]["sdr"]
    assert summary["bass"]["mean"] == pytest.approx(float(by_hand.mean()), abs=1e-4)
    both = [(row["sdr"]["bass"] + row["sdr"]["drums"]) / 2 for row in rows]
    assert summary["mean"]["mean"] == pytest.approx(np.mean(both))
    assert summary["mean"]["ci95"][0] < summary["mean"]["mean"] < summary["mean"]["ci95"][1]
    named = [(chunks.tracks[place].name, start) for place, start in chunks.places]
    assert [(row["track"], row["start"]) for row in rows] == named
    assert f"| bass | {float(by_hand.mean()):.2f} [" in table(found)


def test_without_torchaudio_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.conv_tasnet.model import ConvTasNetConfig, StemSeparator

    monkeypatch.setitem(sys.modules, "torchaudio.models", None)
    with pytest.raises(MlassError, match="torchaudio, which does not import"):
        StemSeparator(ConvTasNetConfig(("bass", "drums")))
    with pytest.raises(OptionError, match="even kernel"):
        ConvTasNetConfig(("bass", "drums"), kernel=33)


@with_torchaudio
def test_estimates_add_up_and_rows_do_not_mix() -> None:
    from benchmarks.conv_tasnet.model import ConvTasNetConfig, StemSeparator

    model = StemSeparator(ConvTasNetConfig(("bass", "drums", "piano"), **SMALL)).eval()
    mixtures = torch.randn(4, 3_001)
    mixtures[1] = 0
    with torch.inference_mode():
        found = model(mixtures)
        assert found.shape == (4, 3, 3_001)
        torch.testing.assert_close(found.mean(1), mixtures, atol=1e-5, rtol=0)
        assert not found[1].any()
        torch.testing.assert_close(model(mixtures[2:3])[0], found[2], atol=1e-5, rtol=0)
        torch.testing.assert_close(model(0.1 * mixtures), 0.1 * found, atol=1e-5, rtol=0)
    with pytest.raises(MlassError, match=r"\[B, T\]"):
        model(mixtures[:, None])


@with_torchaudio
def test_saved_model_is_the_same(tmp_path: Path) -> None:
    from benchmarks.conv_tasnet.model import CARD, WEIGHTS, ConvTasNetConfig, StemSeparator

    model = StemSeparator(ConvTasNetConfig(("bass", "drums"), **SMALL)).eval()
    model.save(tmp_path)
    again = StemSeparator.load(tmp_path)
    assert again.config == model.config
    mixtures = torch.randn(2, 2_000)
    torch.testing.assert_close(again(mixtures), model(mixtures), atol=1e-2, rtol=0)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-10])
    with pytest.raises(BundleError, match="corrupt"):
        StemSeparator.load(tmp_path)
    (tmp_path / CARD).write_text("{}", "utf-8")
    with pytest.raises(BundleError, match="cannot be read"):
        StemSeparator.load(tmp_path)


@with_torchaudio
def test_training_learns_goes_on_and_is_scored(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, since that is what its users call."""
    from benchmarks.conv_tasnet.__main__ import main

    out, scores = tmp_path / "model", tmp_path / "scores.json"
    given = ["--data-root", str(songs), "--sources", "2"]
    sizes = [text for name, size in SMALL.items() for text in (f"--{name}", str(size))]
    training = ["train", *given, *sizes, "--out", str(out), "--batch-size", "2", "--crop", "0.5"]
    training += ["--validate", "2", "--device", "cpu", "--learning-rate", "0.005"]
    scoring = ["evaluate", *given, "--weights", str(out), "--num", "4", "--json", str(scores)]
    main([*training, "--epochs", "1"])
    main(scoring)
    early = json.loads(scores.read_text("utf-8"))
    main([*training, "--epochs", "15"])
    main(scoring)
    late = json.loads(scores.read_text("utf-8"))
    assert late["run"]["split"] == "validation"
    assert len(late["chunks"]) == 4
    assert late["run"]["weights"] != early["run"]["weights"]
    assert late["summary"]["sdri"]["mean"]["mean"] > 6  # over the mixture, on a song not heard
    assert late["summary"]["sdr"]["mean"]["mean"] > early["summary"]["sdr"]["mean"]["mean"]
    assert "| drums |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="of another training: seed was 0"):
        main([*training, "--epochs", "16", "--seed", "1"])
    with pytest.raises(SystemExit, match="separates bass, drums; got --sources 3"):
        main([*scoring, "--sources", "3"])
    with pytest.raises(SystemExit, match="train at their rate"):
        main([*training, "--sample-rate", "16000"])
