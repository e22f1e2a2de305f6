"""Who is timed, by name. What a contender is: `problem.Contender`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from .naive import NaiveChain, NaiveJoint
from .ours import eliminated, messages
from .problem import Contender, LeftOut, Limits, Problem
from .with_einsum import Einsum
from .with_pgmpy import Elimination, Messages
from .with_pyro import Pyro

Make = Callable[[Problem, Limits], Contender]

BASE = "bp"
"""The contender that all others are compared to."""


def _pgmpy(make: Make) -> Make:
    def checked(problem: Problem, limits: Limits) -> Contender:
        if importlib.util.find_spec("pgmpy") is None:
            raise LeftOut("not installed: pip install -e '.[pgmpy]'")
        return make(problem, limits)

    return checked


CONTENDERS: dict[str, Make] = {
    "bp": messages,
    "exact": eliminated,
    "naive_dense": NaiveChain,
    "naive_joint": NaiveJoint,
    "opt_einsum": Einsum,
    "pyro": Pyro,
    "pgmpy": _pgmpy(Elimination),
    "pgmpy_messages": _pgmpy(Messages),
}
"""Each raises LeftOut from its constructor where it does not take part."""
