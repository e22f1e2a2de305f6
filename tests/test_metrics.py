"""PSNR and the assignment of estimates to sources, against torchmetrics and by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from mlass_ppl.errors import SignalError
from mlass_ppl.evaluate import (
    PSNR_CEILING,
    best_permutation,
    mixture_error,
    pairwise_psnr,
    psnr,
    score,
)


def _images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def test_psnr_equals_torchmetrics_per_image() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    estimates, truths = _images(40, seed=1).double(), _images(40, seed=2).double()
    expected = peak_signal_noise_ratio(
        estimates, truths, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    # torchmetrics takes its logarithm with a float32 constant, even in float64
    np.testing.assert_allclose(psnr(estimates, truths), expected.numpy(), rtol=1e-7)


def test_psnr_by_hand() -> None:
    truth = np.zeros((1, 28, 28))
    assert psnr(np.full((1, 28, 28), 0.1), truth) == pytest.approx(20.0)
    assert psnr(np.full((1, 28, 28), 0.1), truth, data_range=10.0) == pytest.approx(40.0)
    half = truth.copy()
    half[:, :14] = 1.0
    assert psnr(half, truth) == pytest.approx(10 * np.log10(2))


def test_psnr_computes_in_float64_whatever_comes() -> None:
    estimates, truths = _images(8, seed=3), _images(8, seed=4)
    np.testing.assert_array_equal(
        psnr(estimates, truths), psnr(estimates.double().numpy(), truths.double().numpy())
    )
    assert psnr(estimates.half(), truths).dtype == np.float64


def test_a_perfect_estimate_scores_the_ceiling() -> None:
    images = _images(3)
    assert psnr(images, images).tolist() == [PSNR_CEILING] * 3
    assert psnr(images + 1e-7, images).max() == PSNR_CEILING
    assert psnr(images, images, ceiling=60.0).tolist() == [60.0] * 3


def test_nan_has_no_score() -> None:
    images = _images(2)
    broken = images.clone()
    broken[1, 0, 3, 3] = float("nan")
    with pytest.raises(SignalError, match="1 NaN or infinite"):
        psnr(broken, images)
    with pytest.raises(SignalError, match="true signals"):
        psnr(images, broken)


@pytest.mark.parametrize("other", [(1, 28, 27), (28, 28), (3, 28, 28)])
def test_psnr_refuses_other_shapes(other: tuple[int, ...]) -> None:
    with pytest.raises(SignalError, match="of one size"):
        psnr(np.zeros((1, 28, 28)), np.zeros(other))


def test_pairs_hold_truth_by_row_and_estimate_by_column() -> None:
    estimates, truths = _images(4, 5, 3, seed=5), _images(4, 1, 3, seed=6)
    pairs = pairwise_psnr(estimates, truths)
    assert pairs.shape == (4, 5, 3, 3)
    for i in range(3):
        for j in range(3):
            expected = psnr(estimates[:, :, j], truths[:, :, i])
            np.testing.assert_array_equal(pairs[:, :, i, j], expected)


def test_pairs_need_as_many_estimates_as_sources() -> None:
    with pytest.raises(SignalError, match="as many estimates as true sources"):
        pairwise_psnr(_images(2, 2), _images(2, 3))


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_the_best_permutation_is_the_best(n: int) -> None:
    pairs = np.random.default_rng(n).normal(size=(20, n, n))
    found = best_permutation(pairs)
    for row in range(20):
        best = max(pairs[row, range(n), order].mean() for order in permutations(range(n)))
        assert found.mean[row] == pytest.approx(best, abs=1e-12)
        assert sorted(found.permutation[row]) == list(range(n))
        np.testing.assert_array_equal(
            found.scores[row], pairs[row, range(n), found.permutation[row]]
        )


def test_the_best_permutation_equals_torchmetrics() -> None:
    from torchmetrics.functional.audio import permutation_invariant_training
    from torchmetrics.functional.image import peak_signal_noise_ratio

    estimates, truths = _images(30, 3, seed=7).double(), _images(30, 3, seed=8).double()

    def metric(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return peak_signal_noise_ratio(left, right, data_range=1.0, reduction="none", dim=(1, 2, 3))

    best, order = permutation_invariant_training(estimates, truths, metric, eval_func="max")
    ours = score(estimates, truths)
    np.testing.assert_allclose(ours.mean, best.numpy(), rtol=1e-7)
    np.testing.assert_array_equal(ours.permutation, order.numpy())


def test_shuffled_estimates_score_the_same_and_are_found_back() -> None:
    truths = _images(6, 4, seed=9)
    estimates = truths + 0.05 * _images(6, 4, seed=10)
    order = torch.tensor([2, 0, 3, 1])
    straight, shuffled = score(estimates, truths), score(estimates[:, order], truths)
    np.testing.assert_array_equal(straight.scores, shuffled.scores)
    assert (straight.permutation == np.arange(4)).all()
    assert (shuffled.permutation == np.argsort(order.numpy())).all()


def test_of_equal_assignments_the_first_is_taken() -> None:
    assert best_permutation(np.ones((3, 3))).permutation.tolist() == [0, 1, 2]


def test_assignment_needs_a_square() -> None:
    with pytest.raises(SignalError, match=r"\[\.\.\., n, n\]"):
        best_permutation(np.ones((2, 3)))


def test_mixture_error_by_hand() -> None:
    estimates = np.stack([np.zeros((1, 28, 28)), np.ones((1, 28, 28))])
    assert mixture_error(estimates, np.full((1, 28, 28), 0.5)) == 0.0
    assert mixture_error(estimates, np.full((1, 28, 28), 0.2)) == pytest.approx(0.09)
