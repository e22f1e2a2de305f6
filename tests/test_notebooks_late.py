"""The exercises of the notebooks from counts to engines of one's own: the right answer is
accepted, and what is wrong with others is said."""

from __future__ import annotations

import pytest
from notebook_cells import notebook, run_exercise

from mlass_ppl import list_bundles

HAS_DIGITS = any(folder.name == "mnist" for folder in list_bundles())

BACK_OFF = """
def backed_off(counts, strength):
    c = counts.double()
    of_first, of_second = c.sum(1), c.sum(0)
    of_first = of_first / of_first.sum(-1, keepdim=True)
    of_second = of_second / of_second.sum(-1, keepdim=True)
    q = (of_first[:, None] + of_second[None]) / 2
    return (c + strength * q) / (c.sum(-1, keepdim=True) + strength)

answer = backed_off
"""

TOLD = """
bundle = mlass.load("mnist")
parts, labels = bundled_digits([1024, 1049])
puzzle, kinds, untold = parts.mean(0), labels.tolist(), parts.flip(0)

def told():
    nine = mlass.source("nine", prior="digit", label=9)
    zero = mlass.source("zero", prior="digit", label=0)
    return mlass.mix("mixture", nine, zero, evidence=mlass.Feature(linear=True))

answer = mlass.separate(
    puzzle, told, bundle, search=mlass.Greedy(), refine=mlass.Learned()
)
"""

SHARES = """
def share_out(stems, mixture):
    power = STFT().forward(stems).abs() ** 2
    shares = power / power.sum(0).clamp_min(1e-12)
    return STFT().inverse(shares * STFT().forward(mixture), mixture.shape[-1])

answer = share_out
"""

BLEND = """
class Blend:
    def __init__(self, first, second, share):
        self.both, self.alphabet = (first, second), first.alphabet
        self.shares = torch.tensor([share, 1 - share]).log()
        lengths = [prior.length for prior in self.both if prior.length is not None]
        self.length = min(lengths, default=None)

    def start(self, rows):
        return [prior.start(rows) for prior in self.both]

    def step(self, tokens, state):
        steps = [prior.step(tokens, own) for prior, own in zip(self.both, state)]
        logs = [log + share for (log, _), share in zip(steps, self.shares)]
        return torch.logaddexp(*logs), [own for _, own in steps]

    def reorder(self, state, index):
        return [prior.reorder(own, index) for prior, own in zip(self.both, state)]

answer = Blend
"""

SOLVED = {
    5: (BACK_OFF, "Right: the pair (1, 2), never seen"),
    6: (TOLD, "Right: the 9 has"),
    7: (SHARES, "Right: it is what Wiener() does."),
    8: (BLEND, "Right: a prior like any other."),
}


def needs_bundle(number: int) -> None:
    if number == 6 and not HAS_DIGITS:
        pytest.skip("bundle 'mnist' is not here")


@pytest.mark.parametrize("number", SOLVED)
def test_exercise_can_be_solved(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    needs_bundle(number)
    solution, said = SOLVED[number]
    run_exercise(notebook(number), solution)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "right", "wrong", "said"),
    [
        (5, "counts.double()", "counts.double(); counts += 1", "changed the counts"),
        (5, "answer = backed_off", "answer = lambda c, s: backed_off(c, s)[0]", "got .4, 7."),
        (5, "strength * q", "strength", "rows must sum to 1"),
        (5, "strength * q) / (c", "0 * q) / (c", "NaN|sum to 1"),
        (5, "+ strength * q) / (c.sum(-1, keepdim=True) + strength)",
         ") / c.sum(-1, keepdim=True)", "NaN: a pair that was never seen"),
        (5, "+ strength * q) / (c.sum(-1, keepdim=True) + strength)",
         ") / c.sum(-1, keepdim=True).clamp_min(1)", "rows must sum to 1"),
        (5, "return (c", "strength = 1; return (c", "strength has no effect"),
        (5, "(of_first[:, None] + of_second[None]) / 2", "of_first[:, None].expand_as(c)",
         "Does q take both parents"),
        (5, "q = (", "q = c.sum(1, True) + c.sum(0, True); q = q / q.sum(-1, True); 0 * (",
         "the two counts together"),
        (5, "* q) / (c", "* 2 * q) / (strength + c", "weighed by the strength"),
        (6, "answer = ", "answer = told; found = ", "what mlass.separate.* returns"),
        (6, "    puzzle, told", "    parts[0], told", "give it puzzle"),
        (6, ", label=9", "", "a source that is told has label"),
        (6, "label=9", "label=4", "the mixture holds"),
        (6, ", evidence=mlass.Feature(linear=True)", "", "observed as Token"),
        (6, ", refine=mlass.Learned()", "", "refine it"),
        (6, "nine, zero,", "nine, zero, weights=(0.6, 0.4),", "leave weights=... out"),
        (7, "return STFT().inverse(shares * STFT().forward(mixture), mixture.shape[-1])",
         "return shares * STFT().forward(mixture)", "this is a spectrum"),
        (7, "mixture.shape[-1])", "mixture.shape[-1]).tolist()", "return a tensor, not a list"),
        (7, "mixture.shape[-1])", "mixture.shape[-1])[0]", "got .12000."),
        (7, ".clamp_min(1e-12)", "", "NaN or infinite"),
        (7, "share_out(stems, mixture):", "share_out(stems, mixture):\n    return stems",
         "came back as they were"),
        (7, ".abs() ** 2", ".abs()", "not of its square"),
        (7, "sum(0)", "sum(1, keepdim=True)", "must sum to the mixture"),
        (7, ".abs() ** 2", ".abs() ** 3", "differs from Wiener"),
        (8, "answer = Blend", "answer = Blend(mlass.NGram.uniform(4), mlass.NGram.uniform(4), 0.5)",
         "the class itself"),
        (8, "min(lengths, default=None)", "None", "the two together know 9"),
        (8, "torch.tensor([share, 1 - share])", "torch.tensor([1 - share, share])",
         "share belongs to the first"),
        (8, "torch.logaddexp(*logs)",
         "sum(s.exp() * log for (log, _), s in zip(steps, self.shares))", "not normalised"),
        (8, "torch.logaddexp(*logs)",
         "sum(s.exp() * log for (log, _), s in zip(steps, self.shares)).log_softmax(-1)",
         "log probabilities were averaged"),
        (8, "prior.reorder(own, index) for", "own for", "reorder"),
        (8, "own for _, own in steps", "own for own in state", "the same tokens|at position"),
    ],
)  # fmt: skip
def test_wrong_solutions_are_told_apart(number: int, right: str, wrong: str, said: str) -> None:
    needs_bundle(number)
    solution, _ = SOLVED[number]
    assert right in solution
    with pytest.raises(AssertionError, match=said):
        run_exercise(notebook(number), solution.replace(right, wrong))
