"""How much memory a separation takes: what was asked for, whatever the number of mixtures, and the
same result in any case."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ALPHABET, TOKENS, make_bundle, make_gpt2, mixtures, same
from torch import Tensor

from mlass_ppl import (
    BP,
    SMC,
    Auto,
    Beam,
    LoopyBP,
    Sample,
    chain,
    joint,
    mix,
    separate,
    source,
    star,
)
from mlass_ppl._separating.chunks import Memory, is_out_of_memory, run_chunks
from mlass_ppl._separating.pasts import SourcePriors
from mlass_ppl.bundle import Bundle
from mlass_ppl.declare import compile_program
from mlass_ppl.errors import OptionError, PlanError
from mlass_ppl.evaluate import PriorOnly
from mlass_ppl.priors import NGram

NEVER = float("inf")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Tiny, with a language model for a prior."""
    return replace(make_bundle(), priors={"blob": make_gpt2()})


def memory_of(bundle: Bundle, search: Any, program: Any = None, infer: Any = None) -> Memory:
    graph = compile_program(program or chain(2))
    engine = infer or Auto()
    plan = engine.plan(graph, bundle.tables(graph, engine.factors(graph)))
    return Memory.of(plan, SourcePriors(graph, bundle), bundle.codec, search)


@dataclass
class Short:
    """A prior on a machine that has memory for `rows` rows and no more: the model runs out in the
    middle, after the random streams have moved on."""

    inner: Any
    rows: float
    error: BaseException
    at: int = 4
    failures: int = 0

    @property
    def alphabet(self) -> int:
        return self.inner.alphabet

    @property
    def length(self) -> int | None:
        return self.inner.length

    def start(self, rows: int, labels: Tensor | None = None) -> Any:
        return 0, rows, self.inner.start(rows)

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        position, rows, inner = state
        if position == self.at and rows > self.rows:
            self.failures += 1
            raise self.error
        log_probs, inner = self.inner.step(tokens, inner)
        return log_probs, (position + 1, rows, inner)

    def reorder(self, state: Any, index: Tensor) -> Any:
        return state[0], state[1], self.inner.reorder(state[2], index)


def short(bundle: Bundle, rows: float, error: BaseException) -> tuple[Bundle, Short]:
    prior = Short(bundle.priors["blob"], rows, error)
    return replace(bundle, priors={"blob": prior}), prior


# --- a limit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", [SMC(6), Beam(4)], ids=repr)
@pytest.mark.parametrize("program", [chain(3), joint(2)], ids=lambda program: program.__name__)
def test_no_limit_changes_the_result(bundle: Bundle, program: Any, search: Any) -> None:
    given, memory = mixtures(7), memory_of(bundle, search, program)
    whole = separate(given, program, bundle, search=search, on_unseen="prior")
    for at_once in (1, 3, 7):
        limit = memory.bytes(at_once)
        found = separate(
            given, program, bundle, search=search, on_unseen="prior", memory_limit=limit
        )
        same(found, whole)
        assert not found.notices


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_limit_decides_how_many_are_separated_at_once(bundle: Bundle, at_once: int) -> None:
    memory, calls = memory_of(bundle, SMC(6)), []
    assert memory.bytes(at_once) < memory.bytes(at_once + 1)
    for limit in (memory.bytes(at_once), memory.bytes(at_once + 1) - 1):
        assert memory.most(limit, 100) == at_once
        calls.clear()
        separate(
            mixtures(6), chain(2), bundle, search=SMC(6), memory_limit=limit,
            progress=lambda done, total: calls.append((done, total)),
        )  # fmt: skip
        chunks = -(-6 // at_once)
        assert calls == [(step + 1, chunks * TOKENS) for step in range(chunks * TOKENS)]


def test_the_batch_size_still_bounds(bundle: Bundle) -> None:
    assert memory_of(bundle, SMC(6)).most(1e15, 4) == 4
    calls: list[int] = []
    separate(
        mixtures(3), chain(2), bundle, search=SMC(6), memory_limit=NEVER, batch_size=1,
        progress=lambda done, total: calls.append(total),
    )  # fmt: skip
    assert set(calls) == {3 * TOKENS}


def test_more_candidates_and_longer_pasts_take_more(bundle: Bundle) -> None:
    few, many = memory_of(bundle, SMC(8)), memory_of(bundle, SMC(16))
    assert many.bytes(4) > 1.5 * few.bytes(4)
    shallow = memory_of(replace(bundle, priors={"blob": NGram.uniform(ALPHABET)}), SMC(8))
    keys_and_values = 4 * 2 * 2 * 16 * TOKENS  # float32, both, layers, width, positions
    assert few.past - shallow.past == 2 * keys_and_values


def test_what_does_not_fit_is_refused_with_advice(bundle: Bundle) -> None:
    memory = memory_of(bundle, SMC(64))
    limit = memory.bytes(1) / 2
    with pytest.raises(PlanError) as caught:
        separate(mixtures(2), chain(2), bundle, search=SMC(64), memory_limit=limit)
    text = str(caught.value)
    for words in ("one mixture with 64 candidates takes about", "kB", "(memory_limit=...)"):
        assert words in text
    advised = int(text.split("SMC(")[1].split(")")[0])
    assert 1 <= advised < 64
    separate(mixtures(1), chain(2), bundle, search=SMC(advised), memory_limit=limit)
    with pytest.raises(PlanError, match=r"one mixture with 1 candidate .* Take an engine that"):
        separate(mixtures(1), chain(2), bundle, search=SMC(1), memory_limit=100)


def test_an_engine_that_tells_no_cost_is_separated_all_the_same(bundle: Bundle) -> None:
    memory = memory_of(bundle, Sample(6), star(2), PriorOnly())
    assert memory.bytes(2) - memory.bytes(1) == pytest.approx(6 * memory.past)
    options: dict[str, Any] = {"infer": PriorOnly(), "search": Sample(6), "on_unseen": "prior"}
    found = separate(mixtures(3), star(2), bundle, memory_limit=memory.bytes(1), **options)
    same(found, separate(mixtures(3), star(2), bundle, **options))


@pytest.mark.parametrize("limit", [0, -1e9, float("nan"), "2GB"])
def test_limits_are_checked(bundle: Bundle, limit: Any) -> None:
    with pytest.raises(OptionError, match="memory_limit must be a positive number of bytes"):
        separate(mixtures(1), chain(2), bundle, memory_limit=limit)


# --- memory that runs out -----------------------------------------------------------------------


def cpu_error() -> RuntimeError:
    """The one that torch raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), cpu_error()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("search", [Sample(6), SMC(6, threshold=1.0)], ids=repr)
def test_out_of_memory_is_tried_again_with_fewer(
    bundle: Bundle, search: Any, error: BaseException
) -> None:
    given = mixtures(7)
    whole = separate(given, chain(2), bundle, search=search)
    limited, prior = short(bundle, rows=2 * 2 * 6, error=error)  # two mixtures of two sources
    calls: list[tuple[int, int]] = []
    found = separate(
        given, chain(2), limited, search=search,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    same(found, whole)
    assert prior.failures == 2  # with seven, with three; one at a time fits
    assert len(found.notices) == 1
    assert "out of memory with 7 mixtures at once: they were separated 1 at a time" in str(found)
    assert calls[-1] == (7 * TOKENS, 7 * TOKENS)


def test_what_fits_is_not_tried_again(bundle: Bundle) -> None:
    given = mixtures(5)
    limited, prior = short(bundle, rows=2 * 2 * 6, error=MemoryError())
    found = separate(given, chain(2), limited, search=Sample(6), batch_size=2)
    assert prior.failures == 0
    assert not found.notices
    same(found, separate(given, chain(2), bundle, search=Sample(6)))


def test_notices_count_every_position_once(bundle: Bundle) -> None:
    def both() -> Any:
        a, b = source("a"), source("b")
        return mix("left", a, b), mix("right", a, b)

    given = mixtures(4)
    options: dict[str, Any] = {"infer": LoopyBP(max_steps=1), "search": Sample(6)}
    whole = separate(given, both, bundle, on_unseen="prior", **options)
    limited, _ = short(bundle, rows=2 * 2 * 6, error=MemoryError())
    found = separate(given, both, limited, on_unseen="prior", **options)
    assert any("did not converge" in notice for notice in whole.notices)
    assert found.notices[-len(whole.notices) :] == whole.notices


def test_where_not_even_one_fits_it_says_so(bundle: Bundle) -> None:
    limited, _ = short(bundle, rows=3, error=MemoryError())
    with pytest.raises(PlanError, match=r"out of memory\. one mixture with 6 candidates") as caught:
        separate(mixtures(3), chain(2), limited, search=Sample(6))
    assert isinstance(caught.value.__cause__, MemoryError)
    assert "Sample(" in str(caught.value)


def test_other_errors_pass(bundle: Bundle) -> None:
    limited, prior = short(bundle, rows=3, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        separate(mixtures(3), chain(2), limited, search=Sample(6))
    assert prior.failures == 1
    assert not is_out_of_memory(ValueError("out of memory"))


def test_rows_are_halved_until_they_fit() -> None:
    taken: list[tuple[int, int, int, int]] = []

    def run(rows: slice, done: int, chunks: int) -> list[int]:
        taken.append((rows.start, rows.stop, done, chunks))
        if rows.stop - rows.start > 3:
            raise MemoryError
        return list(range(rows.start, rows.stop))

    parts, most = run_chunks(10, 8, run, AssertionError)
    assert [row for part in parts for row in part] == list(range(10))
    assert most == 2
    assert taken == [
        (0, 8, 0, 2), (0, 4, 0, 3), (0, 2, 0, 5), (2, 4, 1, 5), (4, 6, 2, 5), (6, 8, 3, 5),
        (8, 10, 4, 5),
    ]  # fmt: skip


def test_failed_attempts_hold_no_memory() -> None:
    """What the first attempt had made is gone when the second one begins."""
    import weakref

    left: list[Any] = []

    def run(rows: slice, done: int, chunks: int) -> int:
        assert all(ref() is None for ref in left)
        mine = torch.zeros(10)
        left.append(weakref.ref(mine))
        if rows.stop - rows.start > 1:
            raise MemoryError
        return 0

    run_chunks(3, 2, run, AssertionError)
    assert len(left) == 4


# --- measured -----------------------------------------------------------------------------------

PEAKS = """
import re, sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
import torch
torch.set_num_threads(1)
from tiny import ALPHABET, TOKENS, make_bundle, mixtures
from transformers import GPT2LMHeadModel
from mlass_ppl import Sample, chain, separate
from mlass_ppl.priors import CausalLM, gpt2_config

model = GPT2LMHeadModel(gpt2_config(ALPHABET, TOKENS, width=64, layers=6, heads=2))
prior = CausalLM(model, ALPHABET).eval().requires_grad_(False)
bundle = replace(make_bundle(), priors={{"blob": prior}})
limits = {limits!r}
for count, limit in limits:
    separate(mixtures(count), chain(2), bundle, search=Sample(400), memory_limit=limit)
    # getrusage would begin with the peak of the process that started this one
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_the_peak_grows_with_the_limit_and_not_with_the_mixtures(bundle: Bundle) -> None:
    """Peaks of one process, which can only grow: two mixtures at once, of two, then of ten, then
    ten at once."""
    from transformers import GPT2LMHeadModel

    from mlass_ppl.priors import CausalLM, gpt2_config

    model = GPT2LMHeadModel(gpt2_config(ALPHABET, TOKENS, width=64, layers=6, heads=2))
    deep = replace(bundle, priors={"blob": CausalLM(model, ALPHABET).eval()})
    memory = memory_of(deep, Sample(400), infer=BP())
    two, ten = memory.bytes(2), memory.bytes(10)
    code = PEAKS.format(tests=str(Path(__file__).parent), limits=[(2, two), (10, two), (10, ten)])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, many, large = (1024 * int(line) for line in run.stdout.split())
    grown = ten - two
    assert many - small < 0.15 * grown  # the results of eight more mixtures, and noise
    assert 0.5 * grown < large - many < 1.2 * grown  # the cost model is not far off
