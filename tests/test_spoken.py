"""The shipped bundle of spoken digits: it loads, is small, and separates better than a copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlass_ppl import SMC, additive, load, separate
from mlass_ppl.audio import Wiener
from mlass_ppl.bundle import list_bundles
from mlass_ppl.data import find_data
from mlass_ppl.evaluate.audio import si_sdri

FOLDER = next((path for path in list_bundles() if path.name == "spoken"), None)
DATA = find_data("fsdd")

pytestmark = pytest.mark.skipif(FOLDER is None, reason="the bundle `spoken` is not here")


def test_it_is_small_and_tells_how_it_was_made() -> None:
    assert isinstance(FOLDER, Path)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 9_000_000
    bundle = load("spoken")
    assert set(bundle.priors) == set(bundle.codecs) == set(bundle.card["levels"])
    assert len(bundle.priors) == 6
    for key in bundle.priors:
        assert bundle.card["priors"][key]["validation_nats"] < 0.7 * np.log(bundle.codec.alphabet)
        assert bundle.card["codecs"][key]["sdr_db"] > 2
    assert "CC BY-SA 4.0" in (FOLDER / "README.md").read_text()


@pytest.mark.skipif(DATA is None, reason="the Free Spoken Digit Dataset is not here")
def test_it_separates_two_speakers_better_than_a_copy() -> None:
    from mlass_ppl.train.spoken import spoken_pools

    bundle, names = load("spoken"), ["george", "jackson"]
    held = spoken_pools(DATA)[1]
    samples = bundle.codec.signal_shape[-1]
    truths = torch.stack([held.draw(name, 4, samples, 0)[:, 0] for name in names], 1)
    mixtures = truths.mean(1)
    found = separate(mixtures[:, None], additive(names), bundle, search=SMC(8), seed=0)
    assert found.sample_rate == 8_000
    raw = torch.stack([found[name][:, 0] for name in names], 1)
    mended = torch.stack(
        [
            Wiener()(mine[:, None], 2 * mix[None])[:, 0]
            for mine, mix in zip(raw, mixtures, strict=True)
        ]
    )
    assert np.mean(si_sdri(mended, truths, mixtures)) > 1
