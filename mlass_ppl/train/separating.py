"""Examples for a refiner, made by separating mixtures of training signals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._separating.signals import interchangeable
from ..bundle import Bundle
from ..declare import Program, compile_program
from ..errors import OptionError
from ..evaluate.metrics import best_permutation, pairwise_psnr
from ..evaluate.protocol import MixtureSet, split_hash
from ..evaluate.provenance import bundle_hash
from ..graph import MixingGraph
from ..infer import Auto, Engine
from ..search import SMC, Search
from ..separate import separate
from ..separation import Separation
from .examples import Examples

Progress = Callable[[int, int], None]

_CHUNK = 64  # mixtures separated together; each chunk is on disk before the next begins


def make_examples(
    bundle: Bundle,
    program: Program | MixingGraph,
    images: Tensor,
    *,
    mixtures: int,
    infer: Engine | None = None,
    search: Search | None = None,
    keep: int = 3,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Examples:
    """Separate mixtures of images [N, 1, S, S] as `program` says and keep what came out.

    mixtures: how many, paired by a permutation of the images that `seed` sets. infer, search: as
    `separate` takes them (default: Auto() and SMC(32)). keep: estimates of each mixture: what
    `separate` answers, and candidates from the nearest to the mixture to the middle one. Those of
    sources that are alike to the program (same weights, same prior) stand in the order in which
    they score best.
    folder: where each chunk of mixtures is kept, so that the same call goes on there after an
    interruption. progress: called with (done, total) mixtures.

    Raises OptionError on impossible numbers, and the errors of `separate`.
    """
    graph, engine = compile_program(program), infer if infer is not None else Auto()
    search = search if search is not None else SMC(32)
    if not 1 <= mixtures <= len(images) or not 2 <= keep <= search.candidates:
        raise OptionError(
            f"mixtures must be 1 to {len(images):,}, the number of images, and keep 2 to "
            f"{search.candidates}, the candidates of {search!r}; got {mixtures} and {keep}."
        )
    pairs = MixtureSet.make(images, len(graph.sources), seed)
    if folder is not None:
        made = (bundle_hash(bundle), split_hash(images), graph.name, engine, search, keep, seed)
        folder = folder / hashlib.sha256(repr(made).encode()).hexdigest()[:16]
    parts = []
    for begin in range(0, mixtures, _CHUNK):
        index = np.arange(begin, min(begin + _CHUNK, mixtures))
        file = None if folder is None else folder / f"{begin:06d}-{len(index)}.safetensors"
        if file is not None and file.is_file():
            parts.append(_read(file))
        else:
            truths = pairs.truths(index)
            given = {
                site: torch.einsum("n,bnchw->bchw", share, truths)
                for site, share in zip(graph.observed, _weights(graph), strict=True)
            }
            found = separate(
                given, graph, bundle, infer=engine, search=search, seed=seed,
                streams=index.tolist(), batch_size=_CHUNK, keep_candidates=True, on_unseen="prior",
            )  # fmt: skip
            parts.append(_example(bundle, graph, found, truths, keep))
            if file is not None:
                _write(parts[-1], file)
        if progress is not None:
            progress(int(index[-1]) + 1, mixtures)
    return Examples.joined(parts)


def _weights(graph: MixingGraph) -> Tensor:
    """Weights [O, n] of the sources in the observed signals."""
    shares = {site: graph.leaf_weights(site) for site in graph.observed}
    return torch.tensor([[own.get(s, 0.0) for s in graph.sources] for own in shares.values()])


def _example(
    bundle: Bundle, graph: MixingGraph, found: Separation, truths: Tensor, keep: int
) -> Examples:
    candidates = found.candidates
    assert candidates is not None  # asked for above
    middle = found.errors.shape[1] // 2
    ranks = torch.linspace(0, middle, keep - 1).round().long()
    order = found.errors.argsort(dim=1, stable=True)[:, ranks]
    rows = torch.arange(len(truths))[:, None]
    picked = [
        torch.cat(
            [found.signals[s][:, None], candidates[s][rows, order.to(candidates[s].device)]], 1
        )
        for s in graph.sources
    ]
    estimates = torch.stack(picked, 2).cpu()
    for group in interchangeable(graph, bundle.prior_key):
        places = [graph.sources.index(source) for source in group]
        mine = estimates[:, :, places]
        pairs = pairwise_psnr(mine, truths[:, None, places])
        best = torch.from_numpy(best_permutation(pairs).permutation)
        estimates[:, :, places] = mine.take_along_dim(best[..., None, None, None], 2)
    flat = truths.flatten(0, 1).to(next(iter(found.signals.values())).device)
    coded = bundle.codec.decode(bundle.codec.encode(flat)).cpu().view_as(truths)
    kept = [(x.clamp(0, 1) * 255).round().to(torch.uint8) for x in (estimates, coded, truths)]
    return Examples(kept[0], kept[1], kept[2], _weights(graph))


def _write(examples: Examples, file: Path) -> None:
    from safetensors.torch import save

    names = ("estimates", "coded", "truths", "weights")
    held = {name: x.contiguous() for name, x in zip(names, examples.tensors(), strict=True)}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    temporary.write_bytes(save(held))
    temporary.replace(file)


def _read(file: Path) -> Examples:
    from safetensors.torch import load_file

    return Examples(**load_file(file))
