"""Statements and values that a mixing program cannot have, and the sentences that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
from pyro.poutine.subsample_messenger import _Subsample

from ..errors import GraphError


def check_statement(program: str, msg: Mapping[str, Any]) -> None:
    """Raises GraphError unless a sample statement's message is of `source` or `mix`, untouched."""
    name, fn = msg["name"], msg["fn"]
    if plates := [frame.name for frame in msg["cond_indep_stack"]] or (
        [name] if isinstance(fn, _Subsample) else []
    ):
        raise GraphError(
            f"'{program}' uses plate '{plates[0]}'; a mixing program declares each site on its "
            "own, with a Python loop where there are many: [source(f'a_{i}') for i in range(3)]."
        )
    if not hasattr(fn, "declared"):
        raise GraphError(_foreign(program, name, fn, msg))
    if msg.get("_intervener_id") is not None:
        raise GraphError(
            f"site '{name}' of '{program}' is intervened on (pyro.poutine.do), which compiling "
            "would lose. Leave the program as it is and intervene on the bound one: "
            "pyro.poutine.do(bind(program, tables, log_priors), data)."
        )
    if msg["is_observed"] or msg["value"] is not None:
        raise GraphError(
            f"site '{name}' of '{program}' is conditioned (pyro.condition), which compiling would "
            "lose. Leave the program as it is and give what is observed as evidence, as in "
            "bind(program, tables, log_priors, evidence), or condition the bound one: "
            "pyro.condition(bind(program, tables, log_priors), data)."
        )
    if msg["scale"] != 1.0 or msg["mask"] is not None:
        raise GraphError(
            f"site '{name}' of '{program}' is scaled or masked by a Pyro handler, which compiling "
            "would lose. How much an observed site counts is declared: mix('m', a, b, "
            "evidence=Token(power=0.5))."
        )


def _foreign(program: str, name: str, fn: Any, msg: Mapping[str, Any]) -> str:
    kind = type(fn).__name__
    if isinstance(fn, dist.Unit):
        return (
            f"'{program}' calls pyro.factor('{name}'); a mixing program only declares. Weights "
            "over the tokens of an observed site are its evidence: mix('m', a, b, "
            "evidence=Soft())."
        )
    if (msg["infer"] or {}).get("_deterministic"):
        return (
            f"'{program}' calls pyro.deterministic('{name}'); a mixing program has only source and "
            "mix sites, whose values are not known while it is declared. Drop the statement."
        )
    if msg["is_observed"]:
        return (
            f"site '{name}' of '{program}' samples {kind} with obs=; a mixing program only "
            f"declares. Return the observed site, return mix('{name}', ...), and give its value "
            f"when the program is used, as evidence={{'{name}': ...}}."
        )
    if not getattr(fn, "has_enumerate_support", False):
        return (
            f"site '{name}' of '{program}' samples {kind}, a continuous variable; every site of a "
            f"mixing program is a token, declared by source('{name}') or mix('{name}', ...). Only "
            "what is observed may be continuous: return mix('m', a, b, evidence=Feature())."
        )
    return (
        f"site '{name}' of '{program}' samples {kind}; every site of a mixing program is declared "
        f"by source('{name}') or mix('{name}', ...) and gets its probabilities when the program is "
        "used. To read a whole Pyro model of discrete sites, use from_pyro(model)."
    )


def refused_part(mixture: str, part: object) -> str:
    """Why a value cannot be a part of a mixture."""
    start = f"mixture '{mixture}' takes {part!r}; expected sites that source(...) or mix(...) "
    if isinstance(part, str):
        return (
            f"mixture '{mixture}' takes the string '{part}'; expected the site itself, as "
            f"source('{part}') returned it: {part} = source('{part}'), then mix('{mixture}', "
            f"{part}, ...)."
        )
    if isinstance(part, (list, tuple)):
        return start + f"returned, each on its own. Unpack them: mix('{mixture}', *sites)."
    if isinstance(part, (int, float)):
        return start + "returned. Weights are a keyword: mix('m', a, b, weights=(0.7, 0.3))."
    if part is None:
        return start + "returned. Is a `return` missing in a function that makes a part?"
    if callable(part):
        called = getattr(part, "__name__", "function")
        return (
            f"mixture '{mixture}' takes the function '{called}'; expected the site that it "
            f"returns. Call it: mix('{mixture}', {called}(), ...)."
        )
    return start + "returned."
