"""Audio scores: against torchmetrics, against a mel filter bank of another library, by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from mlass_ppl.audio import Wiener
from mlass_ppl.errors import OptionError, SignalError
from mlass_ppl.evaluate import summarise
from mlass_ppl.evaluate.audio import (
    CEILING,
    LogMel,
    ideal_ratio_mask,
    improvement,
    kept,
    log_mel_l1,
    mixture_copy,
    mixture_copy_sdr,
    permuted,
    sdr,
    sdri,
    si_sdr,
    si_sdri,
)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_ratios_equal_torchmetrics() -> None:
    from torchmetrics.functional.audio import (
        scale_invariant_signal_distortion_ratio,
        signal_noise_ratio,
    )

    truths = _noise(5, 3, 4000, seed=1).double()
    estimates = truths + torch.logspace(-3, 1, 5)[:, None, None] * _noise(5, 3, 4000, seed=2)
    np.testing.assert_allclose(
        si_sdr(estimates, truths),
        scale_invariant_signal_distortion_ratio(estimates, truths).numpy(),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        sdr(estimates, truths), signal_noise_ratio(estimates, truths).numpy(), rtol=1e-6
    )


def test_ratios_by_hand() -> None:
    truth, other = np.tile([1.0, 0.0], 50), np.tile([0.0, 1.0], 50)
    assert sdr(truth + 0.1 * other, truth) == pytest.approx(20.0)
    assert sdr(1.1 * truth, truth) == pytest.approx(20.0)
    assert sdr(0 * truth, truth) == pytest.approx(0.0)
    assert si_sdr(7.0 * truth + 0.7 * other, truth) == pytest.approx(20.0)
    assert si_sdr(-truth - 0.1 * other, truth) == pytest.approx(20.0)


def test_scale_and_type_do_not_matter() -> None:
    truths, estimates = _noise(4, 1000), _noise(4, 1000, seed=3) + _noise(4, 1000)
    for factor in (1e-12, 1e3):
        np.testing.assert_allclose(
            si_sdr(factor * estimates.double(), truths), si_sdr(estimates, truths), rtol=1e-9
        )
    np.testing.assert_array_equal(sdr(estimates, truths), sdr(estimates.double(), truths.numpy()))
    assert sdr(estimates, truths).dtype == np.float64


def test_rows_are_scored_alone_and_broadcast() -> None:
    truths, estimates = _noise(3, 500), _noise(4, 3, 500, seed=1)
    for metric in (sdr, si_sdr):
        scores = metric(estimates, truths)
        assert scores.shape == (4, 3)
        assert scores[2, 1] == metric(estimates[2, 1], truths[1])


def test_scores_stay_finite() -> None:
    truth = _noise(1000)
    assert sdr(truth, truth) == si_sdr(truth, truth) == si_sdr(3 * truth, truth) == CEILING
    assert si_sdr(0 * truth, truth) == -CEILING
    assert sdr(1e9 * truth, truth) == -CEILING
    orthogonal = np.tile([0.0, 1.0], 50)
    assert si_sdr(orthogonal, orthogonal[::-1]) == -CEILING


def test_silent_sources_are_left_out_and_counted() -> None:
    truths, estimates = _noise(6, 2, 1000), _noise(6, 2, 1000, seed=1)
    truths[2, 1] = 0.0
    for metric in (sdr, si_sdr):
        scores = metric(estimates, truths)
        assert np.isnan(scores).sum() == 1
        assert np.isnan(scores[2, 1])
        assert np.isnan(metric(truths, truths)[2, 1])
        scored, excluded = kept(scores)
        assert (scored.shape, excluded) == ((11,), 1)
        others = np.delete(scores.reshape(-1), 5)
        assert summarise(scored).mean == pytest.approx(others.mean())
    assert kept(log_mel_l1(estimates, truths, LogMel(8000, 256, 64, 20))).excluded == 1


def test_improvement_is_over_the_mixture() -> None:
    truths, estimates = _noise(5, 3, 1000), _noise(5, 3, 1000, seed=1)
    mixtures = truths.mean(1)
    for metric, gain in ((sdr, sdri), (si_sdr, si_sdri)):
        np.testing.assert_allclose(
            gain(estimates, truths, mixtures),
            metric(estimates, truths) - metric(mixtures[:, None].expand(5, 3, 1000), truths),
        )
        copied = gain(mixture_copy(mixtures, 3), truths, mixtures)
        np.testing.assert_array_equal(copied, np.zeros((5, 3)))


def test_a_source_alone_in_the_mixture_cannot_improve() -> None:
    truths = _noise(1, 2, 1000)
    truths[0, 1] = 0.0
    gains = improvement(si_sdr, truths, truths, truths.sum(1))
    assert np.isnan(gains).all()
    assert kept(gains).excluded == 2


def test_labels_are_fixed_unless_asked() -> None:
    truths = _noise(7, 4, 500)
    estimates = (truths + 0.3 * _noise(7, 4, 500, seed=1))[:, [2, 0, 3, 1]]
    assert (sdr(estimates, truths) < 0).all()
    found = permuted(sdr, estimates, truths)
    assert (found.permutation == [1, 3, 0, 2]).all()
    np.testing.assert_array_equal(found.scores, sdr(estimates[:, [1, 3, 0, 2]], truths))


def test_the_best_permutation_is_the_best_and_silence_has_no_say() -> None:
    truths, estimates = _noise(9, 3, 50), _noise(9, 3, 50, seed=1)
    truths[4, 1] = 0.0
    found = permuted(si_sdr, estimates, truths)
    for row in range(9):
        sums = [
            np.nansum(si_sdr(estimates[row, list(o)], truths[row])) for o in permutations(range(3))
        ]
        assert np.nansum(found.scores[row]) == pytest.approx(max(sums))
    assert np.isnan(found.scores).sum() == 1


@pytest.mark.parametrize("metric", [sdr, si_sdr])
def test_bad_signals_have_no_score(metric: object) -> None:
    assert callable(metric)
    good = torch.ones(2, 9)
    for left, right in ((good, torch.ones(2, 8)), (torch.ones(2, 0), torch.ones(2, 0))):
        with pytest.raises(SignalError, match="of one length"):
            metric(left, right)
    with pytest.raises(SignalError, match="18 NaN or infinite"):
        metric(good / 0.0, good)
    with pytest.raises(SignalError, match="true signals"):
        metric(good, good * float("nan"))
    with pytest.raises(SignalError, match="as many estimates"):
        permuted(metric, torch.ones(2, 9), torch.ones(3, 9))


@pytest.mark.parametrize(
    ("rate", "bands", "low", "high"), [(44_100, 80, 0.0, None), (8_000, 40, 50.0, 3_800.0)]
)
def test_mel_filters_equal_another_librarys(
    rate: int, bands: int, low: float, high: float | None
) -> None:
    from transformers.audio_utils import mel_filter_bank

    ours = LogMel(rate, bands=bands, low=low, high=high).filters()
    theirs = mel_filter_bank(1025, bands, low, high or rate / 2, rate, norm=None, mel_scale="htk")
    np.testing.assert_allclose(ours.numpy().T, theirs, atol=1e-12)


def test_log_mel_equals_another_librarys() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    signal = _noise(8192, seed=5).double().numpy()
    filters = mel_filter_bank(513, 40, 0.0, 8000.0, 16_000, norm=None, mel_scale="htk")
    theirs = spectrogram(
        signal,
        window_function(1024, "hann", periodic=True),
        1024,
        256,
        power=1.0,
        pad_mode="constant",
        mel_filters=filters,
        dtype=np.float64,
    )
    ours = LogMel(16_000, 1024, 256, 40)(signal)
    np.testing.assert_allclose(ours, np.log(np.maximum(theirs / 256, 1e-5)), atol=1e-6)


def test_log_mel_distance_by_hand() -> None:
    mel, truths = LogMel(8_000, 512, 128, 20), _noise(3, 4000)
    assert log_mel_l1(truths, truths, mel).tolist() == [0.0] * 3
    np.testing.assert_allclose(log_mel_l1(2 * truths, truths, mel), np.log(2), atol=1e-9)
    np.testing.assert_allclose(log_mel_l1(-truths, truths, mel), 0.0, atol=1e-9)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)
    spectrum = mel(tone)[:, 4:-4]
    assert 0.0 < spectrum.max() < np.log(2) + 1e-6  # 1 in its bin, half of it in the two beside
    assert spectrum.min() == pytest.approx(np.log(1e-5))
    with pytest.raises(SignalError, match="of one length"):
        log_mel_l1(truths, truths[:, 1:], mel)


def test_impossible_mel_options() -> None:
    for options in ({"rate": 0}, {"bands": 0}, {"low": 5000.0}, {"high": 4001.0}, {"floor": 0.0}):
        with pytest.raises(OptionError, match="LogMel takes"):
            LogMel(**{"rate": 8000, **options})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="of 500 mel bands hold no frequency"):
        LogMel(44_100, bands=500)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_copied_mixture_scores_what_it_must(n: int) -> None:
    truths = torch.linalg.qr(_noise(5000, n).double()).Q.T  # orthogonal, of equal energy
    mixture = truths.mean(0)
    scores = sdr(mixture_copy(mixture, n), truths)
    np.testing.assert_allclose(scores, mixture_copy_sdr(n), atol=1e-9)
    np.testing.assert_allclose(sdr(torch.zeros(n, 5000), truths), 0.0)
    assert mixture_copy_sdr(2) == pytest.approx(3.0103, abs=1e-4)
    with pytest.raises(OptionError, match="two or more"):
        mixture_copy_sdr(1)


@pytest.mark.parametrize("mean", [True, False])
def test_the_ideal_mask_is_better_than_any_floor_and_keeps_the_mixture(mean: bool) -> None:
    frames = torch.arange(40_000)
    low = torch.stack([torch.sin(0.05 * (1 + p) * frames) for p in range(4)]).sum(0) / 8
    truths = torch.stack([low, 0.2 * _noise(40_000)]).expand(3, 2, 40_000).double()
    mixtures = truths.mean(1) if mean else truths.sum(1)
    masked = ideal_ratio_mask(truths, mixtures, Wiener(1024, 256), mean=mean)
    assert masked.shape == truths.shape
    rebuilt = masked.mean(1) if mean else masked.sum(1)
    np.testing.assert_allclose(rebuilt, mixtures, atol=1e-9)
    assert (si_sdri(masked, truths, mixtures) > 10).all()
    with pytest.raises(SignalError, match=r"\[\.\.\., n, T\]"):
        ideal_ratio_mask(truths[0, 0], mixtures)
    with pytest.raises(SignalError, match=f"ideal_ratio_mask.*mean={mean}"):
        ideal_ratio_mask(truths, mixtures, mean=not mean)
