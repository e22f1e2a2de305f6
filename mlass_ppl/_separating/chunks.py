"""How many mixtures are separated at once: what fits into memory, and fewer where it did not."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from ..codecs import Codec, tokens_of
from ..errors import OptionError, PlanError
from ..infer import Plan
from ..infer.cost import Cost
from ..infer.report import size
from ..priors import Prior
from ..search import Search
from .pasts import SourcePriors

_STEP = 24
"""Bytes for each entry of a prior's log probabilities: of the model's, as given, as told and as
tempered, and what makes one from the other."""

_DECODER = 64
"""Numbers that a decoder holds at once for each one of a signal; measured on image codecs."""


def check_limit(limit: Any) -> None:
    """Raise OptionError unless a limit of bytes is None or positive."""
    if limit is not None and not (isinstance(limit, int | float) and limit > 0):
        raise OptionError(
            f"memory_limit must be a positive number of bytes, such as 2e9, got {limit!r}."
        )


@dataclass(frozen=True)
class Memory:
    """Bytes that a separation takes beside models, tables, what was given and what comes out.

    engine: of one position. past: of each candidate, all its sources together: what the priors keep
    of it, and its tokens. decoding: of one mixture.
    """

    plan: Plan
    search: Search
    engine: Cost
    past: float
    decoding: float

    @classmethod
    def of(cls, plan: Plan, priors: SourcePriors, codec: Codec, search: Search) -> Memory:
        length = tokens_of(codec)
        past = 8.0 * length  # evidence, before and after candidates are resampled
        for key, sources in priors.groups.items():
            prior = priors.priors[key]
            own = 16 * length + _STEP * prior.alphabet + _kept_bytes(prior, length)
            past += len(sources) * own
        signals = 4.0 * search.candidates * prod(codec.signal_shape)
        decoding = signals * (_DECODER + 6 * len(plan.graph.sources))
        cost = getattr(plan, "cost", None) or Cost(0, 0)  # an engine of one's own may tell none
        return cls(plan, search, cost, past, decoding)

    def bytes(self, mixtures: int) -> float:
        candidates = self.search.candidates
        past = mixtures * candidates * self.past
        return self.engine.bytes(mixtures, candidates) + past + self.decoding

    def most(self, limit: float, mixtures: int) -> int:
        """How many mixtures, up to `mixtures`, can be separated at once within `limit` bytes.

        Raises PlanError where not even one can.
        """
        if self.bytes(1) > limit:
            raise PlanError(
                f"{self._one()}; the limit is {size(limit)} (memory_limit=...). "
                f"{self._advice(limit)}"
            )
        low, high = 1, mixtures
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bytes(middle) <= limit else (low, middle - 1)
        return low

    def out_of_memory(self) -> PlanError:
        """What to say where even one mixture did not fit into the machine's memory."""
        return PlanError(f"out of memory. {self._one()}. {self._advice(self.bytes(1) / 2)}")

    def _one(self) -> str:
        c = self.search.candidates
        parts = {
            "the pasts of its sources": c * self.past,
            "inference": self.engine.bytes(1, c),
            "decoding": self.decoding,
        }
        listed = ", ".join(f"{name} {size(value)}" for name, value in parts.items())
        what = f"one mixture with {c} candidate{'s' * (c != 1)}"
        return f"{what} takes about {size(self.bytes(1))} ({listed})"

    def _advice(self, limit: float) -> str:
        c, fixed = self.search.candidates, self.engine.bytes(1, 1)
        few = int(c * (limit - fixed) / max(self.bytes(1) - fixed, 1.0))
        if 1 <= few < c:
            name = type(self.search).__name__
            return f"Take fewer candidates: {name}({few}) should fit."
        return (
            "Take an engine that needs less, such as Truncated(keep=128) for sources under "
            "features or BP(dense_limit=0) for tables of tokens; print(engine.plan(graph, tables)) "
            "tells what each step holds."
        )


def run_chunks(
    count: int, most: int, run: Callable[[slice, int, int], Any], failed: Callable[[], Exception]
) -> tuple[list[Any], int]:
    """Results of run(rows, done, chunks) for `count` rows, `most` of them at a time, and how many
    at a time they were in the end: after running out of memory half as many.

    done: chunks before this one; chunks: all that there will be. failed: what to raise where not
    even one row fits.
    """
    parts: list[Any] = []
    begin = 0
    while begin < count:
        rows = slice(begin, min(begin + most, count))
        chunks = len(parts) + -(-(count - begin) // most)
        part, error = _attempt(run, rows, len(parts), chunks)
        if error is None:
            parts.append(part)
            begin = rows.stop
            continue
        taken = rows.stop - begin
        if taken == 1:
            raise failed() from error
        most = taken // 2
        del error  # and with it all that the failed attempt held
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    return parts, most


def join(values: Sequence[Any]) -> Any:
    """The parts of a result put together: tensors, mappings of them, or nothing."""
    if values[0] is None:
        return None
    if isinstance(values[0], dict):
        return {key: join([value[key] for value in values]) for key in values[0]}
    return torch.cat(list(values))


def _attempt(run: Callable[..., Any], *given: Any) -> tuple[Any, Exception | None]:
    """The result, or the error of running out of memory."""
    try:
        return run(*given), None
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return None, error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory could not be allocated, on a CPU or an accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("DefaultCPUAllocator", "can't allocate memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _kept_bytes(prior: Prior, length: int) -> float:
    """What a transformer keeps of one past: keys and values at each position in each layer. Other
    priors are taken to keep nothing that counts."""
    config: Any = getattr(getattr(prior, "model", None), "config", None)
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    if not layers or not width:
        return 0.0
    heads = getattr(config, "num_attention_heads", None) or 1
    keys = getattr(config, "num_key_value_heads", None) or heads
    # Buffers double as pasts grow, up to the longest that the model knows.
    positions = min(prior.length or 2 * length, 2 * length)
    return 4.0 * 2 * layers * (width * keys / heads) * positions
