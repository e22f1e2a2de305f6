"""The ablation: its settings, its scores and one row, on a small bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import blobs, make_bundle

from mlass_ppl import BP, SMC, Nearest, Refiner, mix, separate, source
from mlass_ppl.evaluate.metrics import psnr as psnr_of
from mlass_ppl.evaluate.protocol import MixtureSet
from mlass_ppl.refine import RefinerConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_setting_of_the_ablation_is_one_of_its_kind(n: int) -> None:
    from benchmarks.settings import LOUD, settings

    rows = settings(n)
    assert len({(row.group, row.name) for row in rows}) == len(rows)
    groups = {row.group for row in rows}
    assert ("order" in groups) == (n == 3)
    assert ("search by feature" in groups) == (n <= 3)
    for row in rows:
        weights = row.graph.leaf_weights("mixture")
        even = dict.fromkeys((f"source_{i}" for i in range(1, n + 1)), 1 / n)
        assert weights == pytest.approx(LOUD if row.group == "order" else even)
    lasts = [row.graph.site("mixture") for row in rows if row.group == "order"]
    added = [site.parents[-1] for site in lasts if len(site.parents) == 2]
    assert sorted(added) == (sorted(LOUD) if n == 3 else [])


def test_sources_that_are_not_alike_are_scored_by_name() -> None:
    from benchmarks.ablation import psnr, scored

    truths = torch.rand(4, 2, 1, 8, 8)
    swapped = {"b": truths[:, 0], "a": truths[:, 1]}
    assert (psnr(swapped, truths) == 100).all()
    assert (psnr(swapped, truths, alike=False) < 20).all()
    assert (psnr({"b": truths[:, 1], "a": truths[:, 0]}, truths, alike=False) == 100).all()
    assert scored(truths.flip(1), truths)[1].tolist() == [[1, 0]] * 4


def test_a_row_of_the_ablation_scores_every_stage() -> None:
    """Sources of unequal weights, on a small bundle: by hand for the candidate nearest to it."""
    from benchmarks.ablation import STAGES, run
    from benchmarks.settings import Setting

    def loud() -> object:
        return mix("mixture", source("source_2"), source("source_1"), weights=(0.3, 0.7))

    images = blobs(40, 3)
    refiner = Refiner(RefinerConfig(width=4)).eval()
    bundle = replace(make_bundle(), refiner=refiner).count(loud, images, mixtures=400)
    setting = Setting("order", "loud first", loud, BP(), SMC(6))
    row, drawn = run(setting, bundle, images, 5, 7, 4, descent=False)
    assert set(STAGES) - set(row) == {"descent"}
    assert {"BestOf", "Learned"} == set(row["refine_seconds"])
    truths = MixtureSet.make(images, 2, 7).truths(torch.arange(5).numpy())
    mixtures = 0.7 * truths[:, 0] + 0.3 * truths[:, 1]
    torch.testing.assert_close(drawn["mixtures"], mixtures)
    found = separate(
        mixtures, loud, bundle, infer=BP(), search=SMC(6), estimate=Nearest(), on_unseen="prior"
    )
    by_hand = [psnr_of(found[f"source_{i}"], truths[:, i - 1]) for i in (1, 2)]
    assert row["raw"] == pytest.approx(((by_hand[0] + by_hand[1]) / 2).tolist(), abs=1e-2)
