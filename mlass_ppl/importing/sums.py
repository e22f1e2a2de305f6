"""Counted tables ("sums") of LASS and MLASS, told apart by shape, as counts by recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..declare import compile_program
from ..errors import BundleError, TableError
from ..graph import Factor, MixingGraph
from ..infer import Extractor
from ..shapes import chain, star
from ..tables import Counts, Recipe
from ..tables.counts import flat_keys
from .npz import read_npz
from .tensors import read_tensor

DIGIT = "digit"
"""Key of the prior, and so the kind of source that the tables were counted for."""


@dataclass(frozen=True)
class _Sums:
    """Entries that are not zero: coordinates int64 [D, E], one row an axis, and counts [E]."""

    where: Tensor
    values: Tensor
    shape: tuple[int, ...]

    def counts(self, axes: Sequence[int], rows: Tensor | slice = slice(None)) -> Counts:
        """Counts over some axes, (parents..., child), of some entries, summed over the others."""
        shape = tuple(self.shape[axis] for axis in axes)
        keys = flat_keys([self.where[axis][rows] for axis in axes], shape)
        return Counts.merge([Counts(shape, keys, self.values[rows])])  # sorts the keys


def read_sums(path: Path, alphabet: int) -> dict[Recipe, Counts]:
    """The tables in a file of counts, by recipe. K is `alphabet`, that of the codec.

    The shape tells what was counted: [K, K, K] is LASS's (z1, z2, m), the table of `joint(2)`;
    [n - 1, K, K, K] is MLASS-BP's (link, m, the mixture so far, the next source), the tables of
    `chain(n)`; [n, K, K] is MLASS-PE's (source, z, m), of which `star(n)` has one, since its
    sources are of one kind.

    The file is a tensor of PyTorch, dense or sparse COO, or an .npz of the package `sparse`. Raises
    BundleError, naming the file, when it is missing or damaged, of another shape, or holds anything
    but whole numbers.
    """
    sums = _entries(path, alphabet)
    *leading, size = sums.shape
    if sums.shape == (size,) * 3:
        graph = compile_program(chain(2))
        return {_recipe(graph, graph.factors[0]): sums.counts((0, 1, 2))}
    n = leading[0]
    if len(leading) == 2:
        graph = compile_program(star(n))
        return {_recipe(graph, Extractor().factors(graph)[0]): sums.counts((1, 2))}
    graph = compile_program(chain(n + 1))
    return {
        _recipe(graph, factor): sums.counts((2, 3, 1), sums.where[0] == link)
        for link, factor in enumerate(graph.factors)
    }


def _recipe(graph: MixingGraph, factor: Factor) -> Recipe:
    return Recipe.of(graph, factor, lambda source: DIGIT)


def _entries(path: Path, alphabet: int) -> _Sums:
    if path.suffix == ".npz":
        where, values, shape = read_npz(path)
    else:
        tensor = read_tensor(path)
        shape = tuple(tensor.shape)
        if not tensor.is_sparse:
            _check_shape(shape, alphabet, path)  # before its entries are listed
            values = tensor[tensor != 0]
            where = tensor.nonzero().T
        else:
            where, values = tensor._indices(), tensor._values()
    _check_shape(shape, alphabet, path)
    if tuple(where.shape) != (len(shape), values.numel()) or values.ndim != 1:
        raise BundleError(
            f"{path} has coordinates {list(where.shape)} and values {list(values.shape)}, which "
            f"are none of a sparse array {list(shape)}. Save it again from the dense one."
        )
    try:
        flat_keys(list(where), shape)
    except TableError as error:
        raise BundleError(f"{path} has entries outside its shape {list(shape)}.") from error
    odd = _odd(values)
    if odd.any():
        raise BundleError(
            f"{path} holds values that are no counts, such as {values[odd][0].item()}; expected "
            "whole numbers. Was it saved after it had been normalised? Import the sums as training "
            "saved them."
        )
    kept = values != 0
    if not kept.any():
        raise BundleError(
            f"{path} holds nothing but zeros. Were its mixtures counted? Leave it out."
        )
    return _Sums(where[:, kept], values[kept].long(), shape)


def _odd(values: Tensor) -> Tensor:
    """Which of values [E] are no counts: negative, fractions, not finite, beyond float64."""
    if values.is_complex():
        return torch.ones_like(values, dtype=torch.bool)
    real = values.double()
    return ~((real >= 0) & (real < 2**53) & (real == real.floor()))


def _check_shape(shape: tuple[int, ...], alphabet: int, path: Path) -> None:
    k = alphabet
    pair = shape == (k, k, k)
    links = len(shape) == 4 and shape[1:] == (k, k, k) and shape[0] >= 1
    extractors = len(shape) == 3 and shape[1:] == (k, k) and shape[0] >= 2
    if not (pair or links or extractors):
        raise BundleError(
            f"{path} has shape {list(shape)}, which is no table of the VQ-VAE's {k} codes: "
            f"expected [{k}, {k}, {k}] (LASS), [n - 1, {k}, {k}, {k}] (MLASS-BP) or [n, {k}, {k}] "
            "(MLASS-PE). Was it counted for another VQ-VAE, or is it another file? Name the tables "
            "with --sums."
        )
