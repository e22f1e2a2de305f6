"""What each part is worth, on validation digits: python -m benchmarks.ablation --help

Every setting separates the same mixtures once; its candidates are then estimated and refined in
every way, so that those are compared on the same draws. Rows are kept as they are made: the same
command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mlass_ppl as mlass
from mlass_ppl._separating.signals import interchangeable
from mlass_ppl.data import mnist_images
from mlass_ppl.estimate import Candidates
from mlass_ppl.evaluate.metrics import best_permutation, pairwise_psnr
from mlass_ppl.evaluate.protocol import MixtureSet
from mlass_ppl.refine.best import BestOf

from .ablation_report import write_report
from .settings import Setting, settings

STAGES = ("raw", "raw mean", "descent", "learned", "best few", "learned mean")


def scored(estimates: Tensor, truths: Tensor, alike: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """PSNR of each mixture, dB [M], the mean over its sources, and which estimate stands for each
    true source, int64 [M, n]: of sources that are alike the best order."""
    pairs = pairwise_psnr(estimates, truths)
    if alike:
        best = best_permutation(pairs)
        return best.mean, best.permutation
    own = pairs.diagonal(axis1=-2, axis2=-1)
    return own.mean(-1), np.broadcast_to(np.arange(own.shape[-1]), own.shape)


def psnr(signals: dict[str, Tensor], truths: Tensor, alike: bool = True) -> np.ndarray:
    """PSNR of each mixture, dB [M]. truths: [M, n, ...], in the order of the sources' names."""
    return scored(_stacked(signals), truths, alike)[0]


def _stacked(signals: dict[str, Tensor]) -> Tensor:
    """Signals [M, n, ...] in the order of the sources' names."""
    return torch.stack([signals[name] for name in sorted(signals)], 1)


def run(
    setting: Setting, bundle: mlass.Bundle, digits: Tensor, num: int, seed: int, batch: int,
    descent: bool,
) -> tuple[dict[str, Any], dict[str, Tensor]]:  # fmt: skip
    """The row of a setting, and what to draw of it."""
    graph = setting.graph
    n = len(graph.sources)
    truths = torch.as_tensor(MixtureSet.make(digits, n, seed).truths(np.arange(num)))
    weights = {"mixture": graph.leaf_weights("mixture")}
    shares = torch.tensor([weights["mixture"][name] for name in sorted(graph.sources)])
    mixtures = torch.einsum("n,mn...->m...", shares, truths)
    groups = interchangeable(graph, bundle.prior_key)
    found = mlass.separate(
        mixtures, graph, bundle, infer=setting.infer, search=setting.search, batch_size=batch,
        estimate=mlass.Nearest(), keep_candidates=True, on_unseen="prior",
    )  # fmt: skip
    assert found.candidates is not None  # asked for above
    given = Candidates(
        found.candidates, found.errors, found.log_prior, found.log_weights, groups
    )  # fmt: skip
    mean, estimates, seconds = mlass.Mean().signals(given, found.chosen), {}, {}

    def refined(refine: Any, signals: Any) -> dict[str, Tensor]:
        began = time.perf_counter()
        out: dict[str, Tensor] = refine(
            bundle, signals, found.tokens, weights, {"mixture": mixtures}
        )
        seconds[type(refine).__name__] = (time.perf_counter() - began) / num
        return out

    estimates["raw"], estimates["raw mean"] = dict(found.signals), mean
    if descent:
        estimates["descent"] = refined(mlass.Refine(), found.signals)
    estimates["learned"] = refined(mlass.Learned(), found.signals)
    few = BestOf(4).apply(found, bundle)
    assert few.refined is not None  # that is what it did
    estimates["best few"], seconds["BestOf"] = dict(few.refined), few.refine_seconds / num
    estimates["learned mean"] = refined(mlass.Learned(), mean)
    alike = len(groups) == 1
    chosen = {stage: psnr(signals, truths, alike) for stage, signals in estimates.items()}
    copied = scored(mixtures[:, None].expand_as(truths), truths, alike)[0]
    row = {
        "sources": n,
        "group": setting.group,
        "setting": setting.name,
        "program": graph.name,
        "engine": repr(setting.infer),
        "search": repr(setting.search),
        "candidates": setting.search.candidates,
        "mixtures": num,
        "floor": copied.tolist(),
        **{stage: values.tolist() for stage, values in chosen.items()},
        "seconds": found.seconds / num,
        "refine_seconds": seconds,
    }
    answer = _stacked(estimates["learned mean"])
    order = torch.tensor(scored(answer, truths, alike)[1])[..., None, None, None]
    return row, {"mixtures": mixtures, "truths": truths, "found": answer.take_along_dim(order, 1)}


def ceiling(bundle: mlass.Bundle, digits: Tensor, n: int, num: int, seed: int) -> dict[str, Any]:
    """True tokens, decoded and refined: what no search and no evidence can be better than."""
    truths = torch.as_tensor(MixtureSet.make(digits, n, seed).truths(np.arange(num)))
    tokens = {f"source_{i}": bundle.codec.encode(x) for i, x in enumerate(truths.unbind(1), 1)}
    coded = {name: bundle.codec.decode(value) for name, value in tokens.items()}
    weights = {"mixture": dict.fromkeys(tokens, 1 / n)}
    given = {"mixture": truths.mean(1)}
    learned = mlass.Learned()(bundle, coded, tokens, weights, given)
    descent = mlass.Refine()(bundle, coded, tokens, weights, given)
    copied = scored(truths.mean(1)[:, None].expand_as(truths), truths)[0]
    return {
        "sources": n,
        "group": "limits",
        "setting": "true tokens",
        "mixtures": num,
        "floor": copied.tolist(),
        "raw": psnr(coded, truths).tolist(),
        "descent": psnr(descent, truths).tolist(),
        "learned": psnr(learned, truths).tolist(),
    }


def counted(bundle: mlass.Bundle, rows: list[Setting], mixtures: int) -> mlass.Bundle:
    """The bundle with every table that the settings need."""
    training = mnist_images("train")
    for setting in rows:
        bundle = bundle.count(setting.graph, training, infer=setting.infer, mixtures=mixtures)
    return bundle


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--sources", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--num", type=int, default=64, help="validation mixtures")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--mixtures", type=int, default=300_000, help="to count lacking tables")
    parser.add_argument("--pairing-seed", type=int, default=7)
    parser.add_argument("--only", default="", help="groups or settings whose name holds this")
    parser.add_argument("--no-descent", action="store_true", help="leave out the slow refinement")
    parser.add_argument("--bundle", default="mnist")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "ablation.json"
    rows = json.loads(store.read_text("utf-8")) if store.is_file() else []
    bundle, digits = mlass.load(options.bundle), mnist_images("validation")
    for n in options.sources:
        done = {(row["sources"], row["group"], row["setting"]) for row in rows}
        if (n, "limits", "true tokens") not in done:
            rows.append(ceiling(bundle, digits, n, options.num, options.pairing_seed))
        for setting in settings(n):
            if options.only not in f"{setting.group} {setting.name}":
                continue
            if (n, setting.group, setting.name) in done:
                continue
            ready = counted(bundle, [setting], options.mixtures)
            row, drawn = run(
                setting, ready, digits, options.num, options.pairing_seed, options.batch_size,
                not options.no_descent,
            )  # fmt: skip
            rows.append(row)
            store.write_text(json.dumps(rows) + "\n", "utf-8")
            means = "  ".join(f"{s} {np.mean(row[s]):.2f}" for s in STAGES if s in row)
            print(f"n={n} {setting.group}: {setting.name}: {means}  {row['seconds']:.2f} s/mixture",
                  flush=True)  # fmt: skip
            if (setting.group, setting.name) == ("candidates", "64 candidates"):
                torch.save(drawn, options.out / f"cases-{n}.pt")
    print(write_report(rows, options.out))


if __name__ == "__main__":
    main()
