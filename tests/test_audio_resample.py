"""Sample rates: no delay, no aliases, exact lengths, and streams that equal the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlass_ppl.audio import resample, resampled, resampled_length
from mlass_ppl.errors import OptionError, SignalError

pytest.importorskip("soxr")


def _tone(hertz: float, rate: int, frames: int) -> torch.Tensor:
    return torch.from_numpy(np.sin(2 * np.pi * hertz * np.arange(frames) / rate)).float()


def _level(signal: torch.Tensor) -> float:
    """Mean power in dB away from the edges, where filters ring."""
    return float(10 * torch.log10(signal[..., 1000:-1000].double().square().mean()))


@pytest.mark.parametrize(("old", "new"), [(44_100, 22_050), (8_000, 44_100), (48_000, 44_100)])
def test_a_tone_stays_where_it_is(old: int, new: int) -> None:
    out = resample(_tone(1000.0, old, 2 * old), old, new)
    assert _level(out - _tone(1000.0, new, 2 * new)) < -90


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    out = resample(_tone(15_000.0, 44_100, 88_200), 44_100, 22_050)
    assert _level(out) < -120


@given(st.integers(1, 5000), st.integers(1, 200), st.integers(1, 200))
def test_lengths_are_the_nearest(length: int, old: int, new: int) -> None:
    old, new = 500 * old, 500 * new
    signal = torch.rand(2, length)
    if length * new / old > 50_000:
        return
    out = resample(signal, old, new)
    assert out.shape[-1] == resampled_length(length, old, new)
    assert abs(out.shape[-1] - length * new / old) <= 0.5 or out.shape[-1] == 1
    back = resample(out, new, old, length=length)
    assert back.shape == signal.shape
    assert back.isfinite().all()


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.sampled_from([8, 16, 44.1, 96]))
def test_a_stream_is_the_whole(lengths: list[int], kilohertz: float) -> None:
    new = int(1000 * kilohertz)
    signal = torch.rand(2, sum(lengths)) - 0.5
    out = list(resampled(signal.split(lengths, 1), 22_050, new))
    assert torch.equal(torch.cat(out, 1), resample(signal, 22_050, new))


def test_equal_rates_change_nothing() -> None:
    signal = torch.rand(2, 100)
    assert torch.equal(resample(signal, 8000, 8000), signal)
    assert torch.equal(torch.cat(list(resampled(signal.split(7, 1), 8000, 8000)), 1), signal)


def test_leading_axes_are_rows_of_their_own() -> None:
    signal = torch.rand(3, 4, 2, 500) - 0.5
    out = resample(signal, 16_000, 22_050)
    assert out.shape == (3, 4, 2, 689)
    assert torch.equal(out[1, 2, 0], resample(signal[1, 2, 0], 16_000, 22_050))


def test_bad_input() -> None:
    with pytest.raises(SignalError, match="2 NaN or infinite"):
        resample(torch.tensor([0.0, float("nan"), float("inf")]), 8000, 16_000)
    with pytest.raises(SignalError, match="one or more samples"):
        resample(torch.zeros(2, 0), 8000, 16_000)
    with pytest.raises(OptionError, match="whole number"):
        resample(torch.zeros(5), 8000, 0)
    with pytest.raises(OptionError, match="1 or more samples, got 0"):
        resample(torch.zeros(5), 8000, 8000, length=0)
    with pytest.raises(OptionError, match="samples longer than"):
        list(resampled([torch.zeros(1, 500), torch.zeros(1, 5)], 8000, 8000, length=400))
