"""Counts on disk: what was written comes back, and nothing else does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mlass_ppl.errors import TableError
from mlass_ppl.tables import Counts, load_counts, save_counts
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


def test_tables_are_stored_narrow(tmp_path):
    array = torch.ones(64, 64, 16, dtype=torch.int64)
    save_counts(Counts.from_dense(array), tmp_path / "table.safetensors")
    assert (tmp_path / "table.safetensors").stat().st_size < 4.1 * array.numel()


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
            assert place < len(whole) - 160  # the entries are the last bytes


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


def test_the_same_counts_make_the_same_file(tmp_path):
    for name in ("one", "other"):
        save_counts(_counts(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
