"""`check_engine` passes a plain correct engine and finds what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mlass_ppl import (
    Engine,
    EngineError,
    MixingGraph,
    Plan,
    PlanError,
    Posterior,
    Table,
    chain,
    compile_program,
    joint,
)
from mlass_ppl.infer.position import Position
from mlass_ppl.infer.random import Random, draw, uniforms
from mlass_ppl.infer.ready import ready_tables, seen_tokens
from mlass_ppl.testing import Problem, brute_force, check_engine

NEVER = float("-inf")


@dataclass(frozen=True)
class Right(Engine):
    """Every joint state of every row in one array, to break."""

    def is_exact(self, graph: MixingGraph) -> bool:
        return True

    def plan(self, graph: MixingGraph, tables: Mapping[str, Any]) -> RightPlan:
        return RightPlan(self, graph, tables)

    # what a broken one changes

    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        """Log joint [R, K_1, ...] of the latent sites."""
        return log

    def log_evidence(self, log: Tensor) -> Tensor:
        return log

    def marginals(self, marginals: dict[str, Tensor]) -> dict[str, Tensor]:
        return marginals

    def sample(self, answer: RightPosterior, random: Random) -> dict[str, Tensor]:
        position = answer.position
        uniform = uniforms(random, *position.shape, 1).flatten()
        return answer.states(draw(answer.joint.flatten(1), uniform))

    def mode(self, answer: RightPosterior) -> dict[str, Tensor]:
        return answer.states(answer.joint.flatten(1).argmax(1))


class RightPlan(Plan):
    def __init__(self, engine: Right, graph: MixingGraph, tables: Mapping[str, Any]) -> None:
        self.engine: Right = engine
        self.graph = graph
        self.tables, self.sizes = ready_tables(graph, graph.factors, tables)
        self.seen = seen_tokens(graph, graph.factors, self.tables)

    def posterior(self, log_priors: Any, evidence: Any) -> RightPosterior:
        return RightPosterior(self, self.position(log_priors, evidence))


class RightPosterior(Posterior):
    plan: RightPlan

    def __init__(self, plan: RightPlan, position: Position) -> None:
        super().__init__(plan, position)
        self.engine, self.sites = plan.engine, self.graph.latent
        log = torch.zeros(len(position), *[plan.sizes[name] for name in self.sites]).to(
            position.like
        )
        for name, values in position.unary.items():
            log = log + self.spread(values, [name])
        for factor in self.graph.factors:
            table = plan.tables[factor.name]
            if isinstance(table, Table):
                names = [*factor.parents, factor.child]
                given = [name for name in names if name in position.known]
                left = [name for name in names if name not in position.known]
                values = table.dense().log().to(log)
                values = values.permute([names.index(name) for name in given + left])
                values = values[tuple(position.known[name] for name in given)]
                values = values if given else values[None]
            else:
                left = list(factor.parents)
                given = [name for name in left if name in position.known]
                rows = torch.arange(len(position))
                values = position.likelihood[factor.name][position.mixture]
                order = [0] + [1 + left.index(name) for name in given]
                left = [name for name in left if name not in given]
                order += [1 + factor.parents.index(name) for name in left]
                values = values.permute(order)
                values = values[(rows, *(position.known[name] for name in given))]
            log = log + self.spread(values, left)
        log = self.engine.log_joint(log, position)
        total = log.flatten(1).logsumexp(1)
        self.log_evidence = self.engine.log_evidence(total).reshape(position.shape)
        self.possible = self.log_evidence > NEVER
        top = torch.where(total > NEVER, total, torch.zeros_like(total))
        self.joint = (log.flatten(1) - top[:, None]).exp().reshape(log.shape)

    def spread(self, values: Tensor, names: list[str]) -> Tensor:
        order = sorted(range(len(names)), key=lambda axis: self.sites.index(names[axis]))
        values = values.permute(0, *(1 + axis for axis in order))
        shape = iter(values.shape[1:])
        return values.reshape(-1, *[next(shape) if name in names else 1 for name in self.sites])

    def states(self, index: Tensor) -> dict[str, Tensor]:
        tokens = torch.unravel_index(index.clamp_min(0), self.joint.shape[1:])
        shape = self.position.shape
        return {
            name: torch.where(self.possible, values.reshape(shape), -1)
            for name, values in zip(self.sites, tokens, strict=True)
        }

    def sample(self, random: Random) -> dict[str, Tensor]:
        return self.engine.sample(self, random)

    def mode(self) -> dict[str, Tensor]:
        return self.engine.mode(self)

    def marginals(self) -> dict[str, Tensor]:
        out = {}
        for axis, name in enumerate(self.sites, 1):
            values = self.joint.movedim(axis, 1).flatten(2).sum(2) if len(self.sites) > 1 else None
            values = self.joint if values is None else values
            out[name] = values.reshape(*self.position.shape, -1)
        return self.engine.marginals(out)


def test_a_right_engine_passes() -> None:
    check_engine(Right())


# --- broken engines, one defect each --------------------------------------------------------------


class NotExact(Right):
    """Right, but modest: its answers need only be sound."""

    def is_exact(self, graph: MixingGraph) -> bool:
        return False


class ForgetsSoft(Right):
    """Weights over tokens count for nothing."""

    def plan(self, graph: MixingGraph, tables: Mapping[str, Any]) -> RightPlan:
        plan = super().plan(graph, tables)
        laid_out = plan.position

        def position(log_priors: Any, evidence: Any) -> Position:
            flat = {name: torch.zeros_like(evidence[name]) for name in graph.soft}
            return laid_out(log_priors, {**evidence, **flat})

        plan.position = position  # type: ignore[method-assign]
        return plan


class ForgetsPowers(Right):
    def plan(self, graph: MixingGraph, tables: Mapping[str, Any]) -> RightPlan:
        plain = {name: type(graph.evidence(name))() for name in graph.observed}
        return super().plan(graph.with_evidence(plain), tables)


class Smooths(Right):
    """A hidden epsilon."""

    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        return log.logaddexp(log.new_tensor(-20.0))


class NaNs(Right):
    """Zero divided by zero in impossible rows."""

    def marginals(self, marginals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values / values.sum(-1, keepdim=True) for name, values in marginals.items()}


class MixesCandidates(NotExact):
    """`logsumexp(..., dim=0)` over the candidates."""

    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        rows = log.unflatten(0, position.shape)
        mean = rows.logsumexp(1, keepdim=True).expand_as(rows).flatten(0, 1)
        return torch.where(log.flatten(1).amax(1).reshape(-1, *[1] * (log.ndim - 1)) > NEVER, mean, NEVER)  # fmt: skip  # noqa: E501


class FirstMixtureForAll(NotExact):
    """The evidence of mixture 0 counts everywhere, though each mixture has its own."""

    def log_evidence(self, log: Tensor) -> Tensor:
        return torch.where(log > NEVER, log.clamp_min(-1e30) + log[log > NEVER].sum() / 99, log)


class Marginals(Right):
    """Samples that are products of marginals."""

    def sample(self, answer: RightPosterior, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *answer.position.shape, len(answer.sites)).flatten(0, 1)
        return {
            name: draw(values.flatten(0, 1), uniform[:, place]).reshape(answer.position.shape)
            for place, (name, values) in enumerate(answer.marginals().items())
        }


class Greedy(Right):
    """Samples that are all the mode."""

    def sample(self, answer: RightPosterior, random: Random) -> dict[str, Tensor]:
        return answer.mode()


class Tempered(Right):
    """Samples from a posterior that is a little too flat."""

    def sample(self, answer: RightPosterior, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *answer.position.shape, 1).flatten()
        return answer.states(draw(answer.joint.flatten(1) ** 0.8, uniform))


class GlobalRandom(Right):
    def sample(self, answer: RightPosterior, random: Random) -> dict[str, Tensor]:
        return super().sample(answer, torch.rand(*answer.position.shape, 1))


class OneStream(Right):
    """Generators of the mixtures are ignored but for the first."""

    def sample(self, answer: RightPosterior, random: Random) -> dict[str, Tensor]:
        if isinstance(random, list):
            random = random[0]
        return super().sample(answer, random)


class MaxOfMarginals(Right):
    """The mode of each site, which is not the mode of all."""

    def mode(self, answer: RightPosterior) -> dict[str, Tensor]:
        return {
            name: torch.where(answer.possible, values.argmax(-1), -1)
            for name, values in answer.marginals().items()
        }


class ZeroForImpossible(Right):
    def mode(self, answer: RightPosterior) -> dict[str, Tensor]:
        return {name: tokens.clamp_min(0) for name, tokens in super().mode(answer).items()}


class Nats(Right):
    """Evidence in bits."""

    def log_evidence(self, log: Tensor) -> Tensor:
        return log / 0.6931


class LacksMixtures(Right):
    """Marginals of the sources alone, while samples have all."""

    def marginals(self, marginals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values for name, values in marginals.items() if name[0] == "s"}


class LacksSources(Right):
    def marginals(self, marginals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: marginals[name] for name in list(marginals)[1:]}


class Unnormalised(NotExact):
    def marginals(self, marginals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values * 2 for name, values in marginals.items()}


class OneAxisMore(NotExact):
    def plan(self, graph: MixingGraph, tables: Mapping[str, Any]) -> RightPlan:
        plan = super().plan(graph, tables)
        asked = plan.posterior

        def posterior(log_priors: Any, evidence: Any) -> RightPosterior:
            answer = asked(log_priors, evidence)
            answer.log_evidence = answer.log_evidence[..., None]
            return answer

        plan.posterior = posterior  # type: ignore[method-assign]
        return plan


class IntTokens(Right):
    def mode(self, answer: RightPosterior) -> dict[str, Tensor]:
        return {name: tokens.int() for name, tokens in super().mode(answer).items()}


class Single(Right):
    """Works in float64 alone."""

    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        return (
            log + torch.zeros(1, dtype=torch.float64) if log.dtype == torch.float64 else log * 1.01
        )


class Crashes(Right):
    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        if log.ndim > 3:
            raise IndexError("too many sites")
        return log


class ClaimsTooMuch(Right):
    """Says it is exact on graphs that it refuses."""

    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        if log.ndim > 3:
            raise EngineError("this engine takes two latent sites at most: use Exact().")
        return log


class Curt(NotExact):
    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        raise EngineError("no")


class RefusesAll(NotExact):
    def log_joint(self, log: Tensor, position: Position) -> Tensor:
        raise PlanError("this engine needs more memory than there is on any machine.")


class Vague(Right):
    def is_exact(self, graph: MixingGraph) -> bool:
        return None  # type: ignore[return-value]


class Moody(Right):
    """Answers differently every time."""

    def log_evidence(self, log: Tensor) -> Tensor:
        return log + (torch.rand(()) < 0.5) * 1e-3


BROKEN: list[tuple[type[Right], str]] = [
    (ForgetsSoft, r"is .*, expected .*Soft\(\)"),
    (ForgetsPowers, r"is .*, expected .*power="),
    (Smooths, r"log evidence is .*, expected "),
    (NaNs, r"p\(source_1\) is .*nan.*, expected (finite and not negative|zeros)"),
    (MixesCandidates, r"Only other rows of the batch were dropped or moved"),
    (FirstMixtureForAll, r"Only other rows of the batch were dropped or moved"),
    (Marginals, r"the probability of the sample|Chi-square .* not from each site's own marginal"),
    (Greedy, r"Chi-square of 4000 draws"),
    (Tempered, r"Chi-square of 4000 draws"),
    (GlobalRandom, r"The same seed was given twice: draw from the given|One generator was given"),
    (OneStream, r"One generator was given for each mixture"),
    (MaxOfMarginals, r"log probability of the mode is .*, expected"),
    (
        ZeroForImpossible,
        r"mode\(\)\['source_1'\] is 0, expected -1, since its log evidence is -inf",
    ),
    (Nats, r"log evidence is .*, expected "),
    (LacksMixtures, r"the sites of mode\(\) is .*, expected those of marginals\(\)"),
    (LacksSources, r"the sites of marginals\(\) is .*, expected the sources"),
    (Unnormalised, r"p\(source_1\) is .*, expected a sum of 1"),
    (OneAxisMore, r"log_evidence is torch.float64 .*, expected floats \[M, C\]"),
    (IntTokens, r"mode\(\)\['source_1'\] is torch.int32 \[1, 1\], expected torch.int64 \[1, 1\]"),
    (Single, r"float32\."),
    (Crashes, r"IndexError \(too many sites\) is raised by plan and posterior"),
    (
        ClaimsTooMuch,
        r"EngineError \(this engine .*\) is raised, expected an answer, since is_exact",
    ),
    (Curt, r"EngineError \('no'\) is raised, expected a sentence"),
    (RefusesAll, r"refused all \d+ graphs"),
    (Vague, r"is_exact\(graph\) is None, expected True or False"),
    (Moody, r"answers differently when asked the same again|Only other rows|log evidence"),
]


@pytest.mark.parametrize(
    ("kind", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_wrong_is_said(kind: type[Right], message: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){message}") as found:
        check_engine(kind(), examples=200)
    assert kind.__name__ in str(found.value)


def test_an_approximate_engine_need_only_be_sound() -> None:
    check_engine(NotExact(), examples=30)


def test_a_failure_shows_the_smallest_graph_and_the_row() -> None:
    with pytest.raises(AssertionError) as found:
        check_engine(Smooths())
    text = str(found.value)
    assert "random: 1 sources, 1 mixtures" in text
    assert "in row (0, 0) (mixture, candidate) of Smooths(), float64." in text
    assert "log p(source_1) = [" in text
    assert "mix_1 = " in text
    assert len(text.splitlines()) < 15
    assert not getattr(found.value, "__notes__", [])


def test_one_problem_can_be_given() -> None:
    graph = compile_program(chain(3))
    table = Table.from_array(torch.full((3, 3, 3), 1 / 3))
    priors = {name: torch.zeros(2, 2, 3, dtype=torch.float64) for name in graph.sources}
    problem = Problem(
        graph, dict.fromkeys(graph.mixtures, table), priors, {"mixture": torch.tensor([0, 2])}
    )
    check_engine(Right(), problem)
    check_engine(Right(), problem, dtype=torch.float32, tolerance=1e-5)
    with pytest.raises(AssertionError, match="log evidence is"):
        check_engine(Nats(), replace(problem, log_priors={k: v - 1 for k, v in priors.items()}))


# --- the oracle itself, by hand -------------------------------------------------------------------


def test_brute_force_of_two_dice() -> None:
    """The sum of two dice is 4: three ways of 36."""
    total = torch.arange(6)[:, None] + torch.arange(6)
    table = Table.from_array(torch.nn.functional.one_hot(total, 11))
    graph = compile_program(joint(2))
    flat = torch.full((6,), 1 / 6, dtype=torch.float64).log()
    truth = brute_force(
        graph, {"mixture": table}, {"source_1": flat, "source_2": flat}, {"mixture": 2}
    )
    third = torch.tensor([1, 1, 1, 0, 0, 0], dtype=torch.float64) / 3
    assert truth.log_evidence == pytest.approx(torch.tensor(3 / 36).log().item())
    torch.testing.assert_close(truth.marginal("source_2"), third)
    torch.testing.assert_close(truth.pairwise("source_1", "source_1"), third.diag())
    both = truth.pairwise("source_2", "source_1")
    assert both.sum().item() == pytest.approx(1)
    assert [both[i, 2 - i].item() for i in range(3)] == pytest.approx([1 / 3] * 3)
    nats = torch.tensor(3.0).log().item()
    assert truth.entropy("source_1") == pytest.approx(nats)
    assert truth.entropy("source_1", "source_2") == pytest.approx(nats)
    assert truth.topk(4).tolist() == pytest.approx([-nats] * 3 + [NEVER])
    impossible = brute_force(
        graph, {"mixture": table}, {"source_1": flat, "source_2": flat + NEVER}, {"mixture": 2}
    )
    assert impossible.log_evidence == NEVER
    assert impossible.entropy("source_1") == 0
    assert (impossible.marginal("source_1") == 0).all()
    assert (impossible.topk(2) == NEVER).all()
