"""The floor that draws from the priors and does not listen to the mixture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_fakes import EVALUATION, METHODS, blobs, run

from mlass_ppl.declare import compile_program
from mlass_ppl.errors import EngineError
from mlass_ppl.evaluate import Method, PriorOnly
from mlass_ppl.shapes import chain, star


def test_prior_only_draws_from_the_priors_and_ignores_the_mixture() -> None:
    from scipy import stats

    graph = compile_program(star(2))
    log_priors = {
        "source_1": torch.tensor([0.1, 0.0, 0.6, 0.3]).log().expand(2, 20_000, 4),
        "source_2": torch.tensor([0.5, 0.5, 0.0, 0.0]).log().expand(2, 20_000, 4),
    }
    plan = PriorOnly().plan(graph, {})
    found = [
        plan.posterior(log_priors, {name: torch.tensor(tokens) for name in graph.observed})
        for tokens in ([0, 3], [2, 1])
    ]
    draws = [one.sample(torch.Generator().manual_seed(1)) for one in found]
    for name, prior in log_priors.items():
        assert (draws[0][name] == draws[1][name]).all()
        seen = np.bincount(draws[0][name].flatten(), minlength=4)
        expected = prior[0, 0].exp().numpy() * seen.sum()
        assert (seen[expected == 0] == 0).all()
        kept = expected > 0
        assert stats.chisquare(seen[kept], expected[kept]).pvalue > 1e-4
        torch.testing.assert_close(found[0].marginals()[name], prior.exp())
        assert (found[0].mode()[name] == prior.argmax(2)).all()
    assert (found[0].log_evidence == 0).all()
    pair = torch.stack([draws[0][name].flatten() for name in log_priors]).numpy()
    assert abs(np.corrcoef(pair)[0, 1]) < 0.03


def test_prior_only_draws_each_mixture_from_its_own_stream() -> None:
    plan = PriorOnly().plan(compile_program(star(2)), {})
    log_priors = {
        name: torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(i)).log_softmax(2)
        for i, name in enumerate(("source_1", "source_2"))
    }
    whole = plan.posterior(log_priors, {}).sample(
        [torch.Generator().manual_seed(i) for i in range(3)]
    )
    alone = plan.posterior({k: v[1:2] for k, v in log_priors.items()}, {}).sample(
        [torch.Generator().manual_seed(1)]
    )
    for name in log_priors:
        assert (whole[name][1] == alone[name][0]).all()


def test_prior_only_refuses_latent_mixtures() -> None:
    with pytest.raises(EngineError, match="joint"):
        PriorOnly().plan(compile_program(chain(3)), {})


def test_prior_only_stands_among_the_floors_and_has_no_oracle(tmp_path: Path) -> None:
    methods = (Method("floor:prior", star, PriorOnly()), *METHODS)
    report = run(tmp_path / "run", blobs(), replace(EVALUATION, methods=methods, sources=(2,)))
    names = [row.row for row in report.rows]
    assert names[:4] == ["floor:mixture", "floor:black", "floor:prior", "floor:prior"]
    assert names[8:] == [
        "oracle:candidate",
        "oracle:candidate:bp",
        "ceiling:tokens",
        "ceiling:tokens",
    ]
