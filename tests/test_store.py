"""Counts on disk: what was written comes back, and nothing else does."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mlass_ppl.errors import TableError
from mlass_ppl.tables import (
    CellMoments,
    Counts,
    Moments,
    load_cells,
    load_counts,
    load_moments,
    save_counts,
)
from mlass_ppl.tables.packing import pack
from mlass_ppl.tables.store import _checksum


def _counts(shape: tuple[int, ...] = (5, 7, 6), number: int = 300, seed: int = 0) -> Counts:
    generator = torch.Generator().manual_seed(seed)
    *parents, child = (torch.randint(size, (number,), generator=generator) for size in shape)
    return Counts.from_tokens(parents, child, shape)


BIG = 2**33
CASES = {
    "small": _counts(),
    "empty": Counts.empty((3, 4)),
    "one cell": Counts((2, 2), torch.tensor([3]), torch.tensor([1])),
    "first cell": Counts((2, 2), torch.tensor([0]), torch.tensor([9])),
    "wide gaps": Counts((2**20,) * 3, torch.tensor([0, 70_000, 2**59]), torch.tensor([1, 2, 3])),
    "last cell": Counts((7**2, 73 * 127 * 337, 92737 * 649657), *torch.tensor([[2**63 - 2], [1]])),
    "high values": Counts((2, 3), torch.tensor([0, 1, 5]), torch.tensor([1, 2**17, BIG])),
}


@pytest.mark.parametrize("name", CASES)
def test_round_trip(tmp_path, name):
    counts = CASES[name]
    save_counts(counts, tmp_path / "table.safetensors")
    back = load_counts(tmp_path / "table.safetensors")
    assert back == counts
    assert back.keys.dtype == back.values.dtype == torch.int64
    assert [path.name for path in tmp_path.iterdir()] == ["table.safetensors"]
    save_counts(back + back, tmp_path / "table.safetensors")  # replaces it
    assert load_counts(tmp_path / "table.safetensors") == counts + counts


def test_tables_are_stored_in_few_bytes(tmp_path):
    path = tmp_path / "table.safetensors"
    array = torch.ones(64, 64, 16, dtype=torch.int64)
    save_counts(Counts.from_dense(array), path)
    assert path.stat().st_size < 1_000
    random = np.random.default_rng(0)
    keys = torch.from_numpy(random.choice(256**3, 200_000, replace=False)).sort().values
    values = torch.from_numpy(random.geometric(0.5, 200_000))
    save_counts(Counts((256,) * 3, keys, values), path)
    # gaps of mean 84 and counts of mean 2 hold 7.8 and 2 bits each
    assert 9.8 / 8 < path.stat().st_size / 200_000 < 1.1 * 9.8 / 8


def _refused(path, message: str) -> None:
    with pytest.raises(TableError, match=message) as caught:
        load_counts(path)
    assert str(path) in str(caught.value)
    assert "ount it again" in str(caught.value)


def test_missing_empty_and_foreign_files_are_refused_by_name(tmp_path):
    path = tmp_path / "table.safetensors"
    _refused(path, "no readable count table")
    path.write_bytes(b"")
    _refused(path, "no readable count table")
    path.write_bytes(b"PK\x03\x04 not a table at all" * 20)
    _refused(path, "no readable count table")
    path.unlink()
    path.mkdir()
    _refused(path, "no readable count table")


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "table.safetensors"
    save_counts(_counts(), path)
    whole = path.read_bytes()
    for length in (1, 7, 8, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        _refused(path, "no readable count table")
    path.write_bytes(whole + b"\0")
    _refused(path, "no readable count table")


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "table.safetensors"
    counts = _counts(number=40)
    save_counts(counts, path)
    whole = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    places = {*random.integers(0, len(whole), 150).tolist(), len(whole) - 1}
    for place in places:
        damaged = whole.copy()
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = load_counts(path)
        except TableError as error:
            found, message = None, str(error)
        if found is None:
            assert str(path) in message
        else:  # a blank of the header, or the like: what is read is still what was written
            assert found == counts
            assert place < 8 + int.from_bytes(whole[:8], "little")


def test_swapped_files_are_refused(tmp_path):
    """Weights in the place of a table, and the entries of one table under another's header."""
    path = tmp_path / "table.safetensors"
    save_file({"weight": np.zeros((3, 3), np.float32)}, path)
    _refused(path, "no readable count table")
    first, second = (_arrays(_counts(seed=seed)) for seed in (0, 1))
    checksum = _checksum([5, 7, 6], *first.values())
    _write(path, second, shape=[5, 7, 6], sha256=checksum)
    _refused(path, "is damaged")
    _write(path, first, shape=[5, 7, 6], sha256=checksum)
    assert load_counts(path) == _counts(seed=0)
    _write(path, first, shape=[7, 5, 6], sha256=checksum)
    _refused(path, "is damaged")
    _write(path, first, shape=[5, 7, 6])
    _refused(path, "no readable count table")
    _write(path, first, shape=None, sha256=checksum)
    _refused(path, "no readable count table")
    save_file(first, path)
    _refused(path, "no readable count table")


def _arrays(counts: Counts) -> dict[str, np.ndarray]:
    gaps = np.diff(counts.keys.numpy(), prepend=0).astype(np.uint16)
    return {"gaps": gaps, "values": counts.values.numpy().astype(np.uint16)}


def _write(path, arrays: dict[str, np.ndarray], **facts: object) -> None:
    save_file(arrays, path, metadata={"counts": json.dumps(facts)})


@pytest.mark.parametrize(
    ("shape", "gaps", "values"),
    [
        ([2, 2], [0, 4], [1, 1]),  # outside
        ([2, 2], [0, 0], [1, 1]),  # twice the same cell
        ([2, 2], [0, 1], [1, 0]),  # a count of nothing
        ([2, 2], [0, 1], [1]),  # a value missing
        ([4], [0, 1], [1, 1]),  # no parents
        ([2, 2], [2**63 + 1], [1]),  # wraps around to a negative key
    ],
)
def test_entries_with_a_right_checksum_must_still_fit(tmp_path, shape, gaps, values):
    path = tmp_path / "table.safetensors"
    arrays = {"gaps": np.array(gaps, np.uint64), "values": np.array(values, np.uint64)}
    _write(path, arrays, shape=shape, sha256=_checksum(shape, *arrays.values()))
    _refused(path, "is damaged")


def test_a_key_that_wraps_around_twice_is_refused(tmp_path):
    """Its gaps are all positive, and so are its first and last key."""
    path, shape, most = tmp_path / "table.safetensors", [4, 4], 2**63 - 1
    arrays = {"gaps": np.array([3, most, most, 4]), "values": np.ones(4, np.int64)}
    keys = np.cumsum(arrays["gaps"])
    assert (np.diff(keys) > 0).all()
    assert (keys[0], keys[-1]) == (3, 5)
    _write_packed(path, arrays, shape)
    _refused(path, "is damaged")


# --- packed numbers ------------------------------------------------------------------------------


def _write_packed(path, arrays: dict[str, np.ndarray], shape: object = (5, 7, 6), **forged) -> None:
    """A file with a right checksum. forged: planes or packed bytes by name, in place of its own."""
    packed, planes = {}, {}
    for name, array in arrays.items():
        packed[name], planes[name] = pack(array.astype(np.int64))
    packed |= {name: forged.pop(name) for name in packed if name in forged}
    planes = forged.get("planes", planes | forged.get("sizes", {}))
    shape = json.loads(json.dumps(shape))
    checksum = _checksum([shape, planes], *packed.values())
    _write(path, packed, shape=shape, planes=planes, sha256=checksum)


def test_packed_bytes_are_refused_where_they_are_not_what_they_declare(tmp_path):
    path, counts = tmp_path / "table.safetensors", _counts()
    arrays = _arrays(counts)
    _write_packed(path, arrays)
    assert load_counts(path) == counts
    packed, (width, number) = pack(arrays["gaps"].astype(np.int64))
    flipped = packed.copy()
    flipped[len(flipped) // 2] ^= 4
    for forged in (packed[:-5], packed[:9], packed[:0], flipped, np.append(packed, packed)):
        _write_packed(path, arrays, gaps=forged)
        _refused(path, "no readable count table .*inflate")
    _write_packed(path, arrays, gaps=packed.astype(np.int64))
    _refused(path, "no readable count table .*cannot hold byte planes")
    for planes in ([width, number - 1], [width, number + 1], [width + 1, number], [width, 0]):
        _write_packed(path, arrays, sizes={"gaps": planes})
        _refused(path, "no readable count table .*do not inflate to shape")
    for planes in ([width, 2**40], [9, number], [-1, -number], [width, 0.5], [], "21"):
        _write_packed(path, arrays, sizes={"gaps": planes})
        _refused(path, "no readable count table .*cannot hold byte planes")
    for planes in ({}, {"gaps": [width, number]}, {"gaps": 1, "values": 2}, [[2, 3]], 5):
        _write_packed(path, arrays, planes=planes)
        _refused(path, "no readable count table")


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "table.safetensors"
    bomb = np.frombuffer(zlib.compress(bytes(64 << 20), 9), np.uint8)
    arrays = {"gaps": np.arange(4), "values": np.ones(4)}
    _write_packed(path, arrays, (2, 2), gaps=bomb)
    assert path.stat().st_size < 100_000
    _refused(path, "do not inflate to shape")
    _write_packed(path, arrays, (2, 2), gaps=bomb, sizes={"gaps": [1, 64 << 20]})
    _refused(path, "cannot hold byte planes")


def test_sizes_are_part_of_the_checksum(tmp_path):
    path, counts = tmp_path / "table.safetensors", _counts()
    packed = {name: pack(array.astype(np.int64)) for name, array in _arrays(counts).items()}
    planes = {name: shape for name, (_, shape) in packed.items()}
    stored = {name: array for name, (array, _) in packed.items()}
    facts = {"shape": [5, 7, 6], "sha256": _checksum([[5, 7, 6], planes], *stored.values())}
    _write(path, stored, planes=planes, **facts)
    assert load_counts(path) == counts
    _write(path, stored, planes=planes | {"gaps": [1, 10**15]}, **facts)
    _refused(path, "is damaged")
    _write(path, stored, **facts)
    _refused(path, "is damaged")
    _write(path, stored, planes=planes, **facts | {"shape": [float("inf"), 7]})
    _refused(path, "no readable count table")


# --- files of narrow integers, as they were written before numbers were packed -------------------


@pytest.mark.parametrize("name", CASES)
def test_plain_counts_are_still_read(tmp_path, name):
    counts, path = CASES[name], tmp_path / "table.safetensors"
    gaps = np.diff(counts.keys.numpy(), prepend=0)
    arrays = {"gaps": gaps.astype(np.uint64), "values": counts.values.numpy().astype(np.uint64)}
    shape = list(counts.shape)
    _write(path, arrays, shape=shape, sha256=_checksum(shape, *arrays.values()))
    back = load_counts(path)
    assert back == counts
    assert back.keys.dtype == back.values.dtype == torch.int64


def test_plain_moments_are_still_read(tmp_path):
    path = tmp_path / "table.safetensors"
    arrays = {
        "gaps": np.array([2, 5], np.uint16),
        "number": np.array([1, 3], np.uint16),
        "total": np.array([[-4, 5], [70_000, -1]], np.int32),
        "square": np.array([[16, 25], [2**62, 1]], np.uint64),
    }
    facts = {"shape": [3, 4], "sha256": _checksum([3, 4], *arrays.values())}
    save_file(arrays, path, metadata={"moments": json.dumps(facts)})
    keys, number, total, square = (torch.tensor(a.tolist()) for a in arrays.values())
    assert load_moments(path) == Moments((3, 4), 2, keys.cumsum(0), number, total, square)


def test_plain_moments_of_cells_are_still_read(tmp_path):
    path = tmp_path / "table.safetensors"
    arrays = {
        "number": np.array([1, 0, 3], np.uint16),
        "total": np.array([[-4, 5], [0, 0], [70_000, -1]], np.int32),
        "cross": np.array([[16, -20, 25], [0, 0, 0], [2**40, -3, 1]], np.int64),
    }
    facts = {"shape": [3], "sha256": _checksum([3], *arrays.values())}
    save_file(arrays, path, metadata={"cells": json.dumps(facts)})
    assert load_cells(path) == CellMoments(*(torch.tensor(a.tolist()) for a in arrays.values()))


def test_the_same_counts_make_the_same_file(tmp_path):
    for name in ("one", "other"):
        save_counts(_counts(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
