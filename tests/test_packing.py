"""Packed numbers: what was packed comes out, and nothing larger than was declared ever does."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mlass_ppl.tables import packing
from mlass_ppl.tables.packing import pack, unpack

LOWEST, HIGHEST = -(2**63), 2**63 - 1
EDGES = [
    0,
    -1,
    *(sign * 2**bits - less for bits in range(64) for sign in (1, -1) for less in (0, 1)),
]
WHOLE = st.integers(LOWEST, HIGHEST) | st.integers(-300, 300)


@settings(max_examples=200)
@given(arrays(np.int64, array_shapes(min_dims=1, max_dims=3, min_side=0), elements=WHOLE))
def test_round_trip(numbers):
    packed, shape = pack(numbers)
    assert packed.dtype == np.uint8
    assert shape[1:] == list(numbers.shape)
    back = unpack(packed, shape)
    assert back.dtype == np.int64
    assert np.array_equal(back, numbers)


@pytest.mark.parametrize("edge", [edge for edge in EDGES if LOWEST <= edge <= HIGHEST])
def test_planes_are_the_fewest_bytes_that_hold_the_numbers(edge):
    numbers = np.array([0, edge, 0, edge])
    packed, (width, size) = pack(numbers)
    assert size == 4
    fewest = next(w for w in range(1, 9) if -(2 ** (8 * w - 1)) <= edge < 2 ** (8 * w - 1))
    assert width == fewest
    rows = [number.to_bytes(width, "little", signed=True) for number in numbers.tolist()]
    assert zlib.decompress(packed) == bytes(
        byte for plane in zip(*rows, strict=True) for byte in plane
    )
    assert unpack(packed, [width, size]).tolist() == numbers.tolist()


def test_strided_numbers_are_packed_as_they_read():
    numbers = np.arange(60).reshape(3, 20)[:, ::3]
    assert np.array_equal(unpack(*pack(numbers)), numbers)
    assert np.array_equal(unpack(*pack(numbers.T)), numbers.T)


def test_small_numbers_and_long_runs_cost_little():
    random = np.random.default_rng(0)
    numbers = random.geometric(0.5, 100_000)  # an entropy of two bits each
    numbers[::1000] = 10**12  # a few large ones widen all
    assert 2 / 8 < pack(numbers)[0].size / numbers.size < 0.4
    assert pack(np.ones(100_000, np.int64))[0].size < 500


PACKED, SHAPE = pack(np.array([[5, 600, -7], [1, 0, 2]]))


@pytest.mark.parametrize(
    "shape",
    [
        [],
        [0, 2, 3],
        [9, 2, 3],
        [-2, -2, 3],
        [2, -2, -3],
        [2, 2.0, 3],
        [True, 4, 3],
        [2, "2", 3],
        [2, None, 3],
        [2, 2**70, 3],
        [8, 2**12, 2**13],
        [2, 0, 2**62],
        "223",
    ],
    ids=str,
)
def test_shapes_that_are_none_are_refused_before_inflating(monkeypatch, shape):
    assert unpack(PACKED, SHAPE).tolist() == [[5, 600, -7], [1, 0, 2]]
    monkeypatch.setattr(packing.zlib, "decompressobj", None)
    with pytest.raises(ValueError, match="bytes cannot hold byte planes of shape"):
        unpack(PACKED, shape)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="cannot hold byte planes"):
        unpack(PACKED.astype(np.int64), SHAPE)


@pytest.mark.parametrize(
    "shape", [[2, 2, 2], [2, 2, 4], [1, 2, 3], [3, 2, 3], [2, 0, 3], [2, 6, 2]]
)
def test_another_size_than_declared_is_refused(shape):
    with pytest.raises(ValueError, match="do not inflate to shape"):
        unpack(PACKED, shape)


def test_every_truncation_and_every_flipped_bit_is_noticed():
    numbers = np.random.default_rng(0).integers(-500, 500, 40)
    packed, shape = pack(numbers)
    for length in range(packed.size):
        with pytest.raises(ValueError, match="inflate"):
            unpack(packed[:length], shape)
    with pytest.raises(ValueError, match="inflate"):
        unpack(np.append(packed, packed[:1]), shape)
    harmless = 0
    for bit in range(8 * packed.size):
        damaged = packed.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = unpack(damaged, shape)
        except ValueError:
            continue
        harmless += 1  # how hard it was packed, how far back repeats may lie, the padding
        assert np.array_equal(found, numbers)
    assert harmless < 16


def test_a_bomb_is_never_inflated_further_than_it_declares():
    bomb = np.frombuffer(zlib.compress(bytes(200 << 20), 9), np.uint8)
    assert bomb.size < 210_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="do not inflate to shape"):
            unpack(bomb, [1, 1000])
        with pytest.raises(ValueError, match="cannot hold"):
            unpack(bomb, [1, 200 << 20])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_would_look_like_a_bomb_is_stored_so_that_it_can_be_read(monkeypatch):
    monkeypatch.setattr(packing, "_FREE", 100)
    short, long = np.ones(100, np.int64), np.ones(20_000, np.int64)
    assert pack(short)[0].size < 30
    packed, shape = pack(long)
    assert packed.size > long.size
    assert np.array_equal(unpack(packed, shape), long)
    with pytest.raises(ValueError, match=r"24 bytes cannot hold .* at most 384 numbers"):
        unpack(np.zeros(24, np.uint8), [1, 385])
