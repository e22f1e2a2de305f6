"""Segments of a long signal: cut, processed and joined without a seam."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlass_ppl.audio import Segments
from mlass_ppl.errors import OptionError, SignalError


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Segments, list[int]]:
    size = draw(st.integers(1, 40))
    segments = Segments(size, draw(st.integers(0, size // 2)), draw(st.integers(0, 30)))
    return segments, draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))


@given(_cases())
def test_bodies_lie_where_they_should(case: tuple[Segments, list[int]]) -> None:
    segments, lengths = case
    signal = torch.arange(sum(lengths), dtype=torch.float64)
    cut = list(segments.cut(signal.split(lengths)))
    step = segments.size - segments.overlap
    for place, (samples, body, start) in enumerate(cut):
        assert start == place * step
        begin, end = max(0, start - segments.context), start + segments.size + segments.context
        assert torch.equal(samples, signal[begin:end])
        assert torch.equal(samples[body], signal[start : start + segments.size])
    # the last reaches the end, and the one before does not
    assert cut[-1].start + segments.size >= len(signal)
    assert len(cut) == 1 or cut[-2].start + segments.size < len(signal)


@given(_cases())
def test_pieces_do_not_matter(case: tuple[Segments, list[int]]) -> None:
    segments, lengths = case
    signal = torch.rand(2, sum(lengths))
    whole, pieces = segments.cut(signal), segments.cut(signal.split(lengths, 1))
    for one, other in zip(whole, pieces, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert one[1:] == other[1:]


@given(_cases())
def test_outputs_that_agree_are_rebuilt_bit_by_bit(case: tuple[Segments, list[int]]) -> None:
    segments, lengths = case
    signal = torch.randn(3, sum(lengths))
    joined = list(segments.process(lambda samples: 2 * samples, signal.split(lengths, 1)))
    assert torch.equal(torch.cat(joined, 1), 2 * signal)


@given(_cases())
def test_windows_sum_to_one_and_rise_smoothly(case: tuple[Segments, list[int]]) -> None:
    segments, lengths = case
    count = len(list(segments.cut(torch.zeros(sum(lengths)))))
    place = iter(range(count))

    def own(samples: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(count, len(samples), dtype=torch.float64)
        out[next(place)] = 1.0
        return out

    windows = torch.cat(list(segments.process(own, torch.zeros(sum(lengths)))), 1)
    assert torch.allclose(windows.sum(0), torch.ones((), dtype=torch.float64), atol=1e-15)
    assert (windows >= 0).all()
    if segments.overlap and windows.shape[1] > 1:
        # the steepest step of a raised cosine over so many samples
        assert windows.diff(dim=1).abs().max() <= 1.6 / segments.overlap


def test_segments_of_different_level_are_joined_without_a_step() -> None:
    levels = iter([0.0, 1.0, -1.0, 0.5])
    joined = list(
        Segments(1000, 400).process(lambda samples: samples + next(levels), torch.zeros(2600))
    )
    out = torch.cat(joined)
    assert out.shape == (2600,)
    assert out.diff().abs().max() < 2.0 * 1.6 / 400


def test_context_makes_a_filter_see_over_the_edge() -> None:
    kernel = torch.randn(1, 1, 21, dtype=torch.float64)

    def smooth(samples: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv1d(samples[None, None], kernel, padding=10)[0, 0]

    signal = torch.randn(1234, dtype=torch.float64)
    whole = smooth(signal)
    with_context = torch.cat(list(Segments(100, context=10).process(smooth, signal)))
    assert torch.allclose(with_context, whole, atol=1e-12)
    without = torch.cat(list(Segments(100).process(smooth, signal)))
    assert not torch.allclose(without, whole, atol=1e-3)


def test_leading_axes_may_change() -> None:
    def sources(samples: torch.Tensor) -> torch.Tensor:
        return torch.stack([samples, -samples, 0.5 * samples])

    out = torch.cat(list(Segments(50, 20).process(sources, torch.ones(2, 333))), -1)
    assert out.shape == (3, 2, 333)


def test_a_stream_is_read_only_as_far_as_needed() -> None:
    read = 0

    def pieces() -> Iterator[torch.Tensor]:
        nonlocal read
        for _ in range(1_000_000):
            read += 1
            yield torch.ones(10)

    outputs = Segments(100, 20, context=30).process(torch.neg, pieces())
    made = sum(len(next(outputs)) for _ in range(50))
    assert made <= 10 * read <= made + 200


def test_memory_does_not_grow_with_the_signal() -> None:
    segments = Segments(100, 20, context=30).cut(torch.ones(10) for _ in range(5000))
    held = [segment.samples.untyped_storage().nbytes() for segment in segments]
    assert len(held) == 625
    assert max(held) <= 4 * (160 + 10)


def test_an_empty_stream_gives_nothing() -> None:
    assert list(Segments(10).process(torch.neg, [])) == []
    assert list(Segments(10).process(torch.neg, torch.zeros(0))) == []


def test_a_function_that_changes_the_length_is_refused() -> None:
    with pytest.raises(SignalError, match="segment at sample 80 has 100 samples and its output 99"):
        list(Segments(100, 20).process(lambda s: s if s[0] else s[1:], torch.eye(1, 300)[0]))


@pytest.mark.parametrize("values", [(0, 0, 0), (10, 6, 0), (10, -1, 0), (10, 0, -1)])
def test_impossible_values(values: tuple[int, int, int]) -> None:
    with pytest.raises(OptionError, match="overlap from 0 to half"):
        Segments(*values)
