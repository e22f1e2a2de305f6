"""Any engine against brute force: on one problem, or on a search for one that it gets wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..errors import EngineError, PlanError
from ..graph import Mix
from ..infer.base import Engine, Posterior
from ._hypothesis import strategies
from ._rows import check_rows, check_sampling
from ._sound import check_sound
from ._truth import check_truth
from ._verdict import Case
from .problems import Problem, random_graph, random_problem

_SHRINKING = 100
"""Problems that are tried in search of a smaller one that fails."""


def check_engine(
    engine: Engine,
    problem: Problem | None = None,
    *,
    examples: int = 100,
    tolerance: float = 1e-8,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Hold an engine to its word on one problem or, without one, on `examples` random problems:
    trees and graphs with cycles, one to eight sources, evidence of all three kinds.

    Where `engine.is_exact(graph)`, every row must equal brute force: log evidence, marginals, mode,
    and topk, pairwise and entropy where the engine has them; its samples must be possible and pass
    a chi-square test against the joint posterior. Elsewhere it must refuse the graph with a
    sentence (EngineError, PlanError), or give answers of the right shapes, finite and normalised,
    that agree on which rows are impossible. In both cases no row may depend on another, and one
    seed draws one sample. The search checks float32 as well.

    An engine may leave latent mixtures out of its answers (as `Extractor` does), no sources.

    tolerance: absolute for probabilities, to which a type's rounding of logarithms as large as the
    evidence is added; relative to max(1, |value|) for logarithms. dtype: of the priors. Raises
    AssertionError with the graph (the smallest that was found), the row and the first difference.
    """
    if problem is not None:
        _check(engine, problem, dtype, tolerance)
    else:
        _search(engine, examples, dtype, tolerance)


def _check(engine: Engine, problem: Problem, dtype: torch.dtype, tolerance: float) -> bool:
    """Whether the engine answered, not refused. Raises AssertionError."""
    case = Case(engine, problem, dtype, tolerance)
    exact = engine.is_exact(problem.graph)
    if not isinstance(exact, bool):
        case.fail("is_exact(graph)", exact, "True or False")
    answer = _answer(case, exact)
    if answer is None:
        return False
    exact = exact or case.ask("exact", lambda: answer.exact)
    check_sound(case, answer)
    if exact:
        check_truth(case, answer)
    check_sampling(case, answer, exact)
    check_rows(case, answer)
    return True


def _answer(case: Case, exact: bool) -> Posterior | None:
    """The posterior, or None where the engine refuses as it may."""
    try:
        return case.posterior(case.problem)
    except (EngineError, PlanError) as error:
        kind, words = type(error).__name__, str(error)
        if exact:
            case.fail(f"{kind} ({words})", "raised", "an answer, since is_exact(graph) is True")
        if len(words.split()) < 4:
            case.fail(f"{kind} ({words!r})", "raised", "a sentence that says what to do instead")
        return None
    except Exception as error:
        case.blame(error, "plan and posterior")


def _search(engine: Engine, examples: int, dtype: torch.dtype, tolerance: float) -> None:
    tried = _Tried()

    def check(problem: Problem) -> None:
        tried.count += 1
        try:
            tried.answered += _check(engine, problem, dtype, tolerance)
            if dtype == torch.float64:
                _check(engine, problem, torch.float32, max(tolerance, 1e-4))
        except AssertionError as error:
            tried.failed.append((_size(problem), error))
            tried.left = tried.left or tried.count + _SHRINKING
            raise
        finally:
            if tried.count == tried.left:
                raise _Enough

    for sources, states in ((3, 2**6), (8, 2**12)):  # small ones first: they are quick to shrink
        _run(check, engine, sources, states, examples // 2 or 1)
        if tried.failed:
            _, error = min(tried.failed, key=lambda pair: pair[0])
            raise AssertionError(str(error)) from error.__cause__
    if not tried.answered:
        raise AssertionError(
            f"{engine!r} refused all {tried.count} graphs, chains of two sources among them, so "
            "that nothing was checked. Answer trees at least, or pass check_engine a problem."
        )


def _run(
    check: Callable[[Problem], None], engine: Engine, sources: int, states: int, examples: int
) -> None:
    """Check random problems until one fails and cannot be made smaller."""
    either = strategies().one_of
    from hypothesis import HealthCheck, Verbosity, given, settings
    from hypothesis.errors import Flaky

    graphs = either(random_graph(sources), random_graph(sources, tree=False))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(random_problem(graphs, max_states=states, engine=engine))
    def search(problem: Problem) -> None:
        check(problem)

    # What failed is kept: an engine that fails by chance makes hypothesis doubt it.
    with contextlib.suppress(AssertionError, Flaky, _Enough):
        search()


class _Enough(BaseException):
    """Ends a search at once, past hypothesis."""


@dataclass
class _Tried:
    """count: problems. answered: of these, not refused. failed: what each failure said, by the size
    of its problem. left: the count at which shrinking ends, 0 before the first failure."""

    count: int = 0
    answered: int = 0
    failed: list[tuple[tuple[int, ...], AssertionError]] = field(default_factory=list)
    left: int = 0


def _size(problem: Problem) -> tuple[int, ...]:
    parts = [len(site.parents) for site in problem.graph.sites if isinstance(site, Mix)]
    return (
        len(problem.graph.sites),
        sum(parts),
        sum(problem.sizes.values()),
        len(problem.rows),
        len(repr(problem.graph)),
    )
