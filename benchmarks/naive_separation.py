"""A whole separation as one would write it down first: the same algorithm, nothing shared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import mlass_ppl as mlass
from mlass_ppl.priors import CausalLM

from .naive import Recursion
from .real import chain_tables


class NaiveSeparation:
    """LASS's ancestral sampling on MLASS's chain: mixtures one by one, `candidates` of each, a
    Hugging Face causal LM with its own growing cache for every row of every source, the dense
    recursion at every position, and of the decoded candidates the one nearest to the mixture.

    Positions whose token the table never saw go on from the priors alone, as in `separate` with
    `on_unseen="prior"`.
    """

    def __init__(self, bundle: mlass.Bundle, n: int, candidates: int = 64, seed: int = 0) -> None:
        graph = mlass.compile_program(mlass.chain(n))
        tables = chain_tables(bundle, graph)
        made = {id(table): table.dense(torch.float32) for table in tables.values()}
        self.chain = Recursion([made[id(tables[f.name])] for f in graph.factors], seed)
        (self.prior,) = bundle.priors.values()
        self.codec: Any = bundle.codec
        self.seen = tables["mixture"].seen().tolist()
        self.n, self.candidates = n, candidates

    @torch.no_grad()
    def __call__(self, mixtures: Tensor) -> Tensor:
        """Sources [M, n, *signal] of mixtures [M, *signal]."""
        return torch.stack([self._one(mixture) for mixture in mixtures])

    def _one(self, mixture: Tensor) -> Tensor:
        rows = self.n * self.candidates
        memory = _Memory(self.prior) if isinstance(self.prior, CausalLM) else _Steps(self.prior)
        fed, drawn = None, []
        for token in self.codec.encode(mixture[None])[0].tolist():
            priors = list(memory(fed, rows).unflatten(0, (self.n, self.candidates)).unbind())
            if self.seen[token]:
                found = self.chain.sample(priors, token)
            else:
                found = [torch.multinomial(p, 1, generator=self.chain.random)[:, 0] for p in priors]
            fed = torch.cat(found)
            drawn.append(torch.stack(found))
        tokens = torch.stack(drawn, -1)  # [n, C, T]
        signals = self.codec.decode(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        errors = (signals.mean(0) - mixture).square().flatten(1).mean(1)
        return signals[:, int(errors.argmin())]


class _Memory:
    """p(next token) [rows, K] of a causal LM, its keys and values in the cache it makes itself."""

    def __init__(self, prior: CausalLM) -> None:
        self.model: Any = prior.model
        self.alphabet, self.begin = prior.alphabet, prior.begin
        self.cache: Any = None

    def __call__(self, tokens: Tensor | None, rows: int) -> Tensor:
        fed = torch.full((rows,), self.begin) if tokens is None else tokens
        out = self.model(input_ids=fed[:, None], past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        return out.logits[:, -1, : self.alphabet].softmax(-1)


class _Steps:
    """The same of any other prior."""

    def __init__(self, prior: mlass.Prior) -> None:
        self.prior, self.state = prior, None

    def __call__(self, tokens: Tensor | None, rows: int) -> Tensor:
        if self.state is None:
            self.state = self.prior.start(rows)
        log, self.state = self.prior.step(tokens, self.state)
        return log.float().exp()
