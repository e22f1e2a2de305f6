"""What can go wrong around and inside a program's Python, and the sentences that say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import isclass, isgenerator, signature
from typing import Any

from ..errors import GraphError

_OPTIONS = {
    "source": ("prior", "alphabet", "label"),
    "mix": ("weights", "hidden", "alphabet", "evidence", "codec", "symmetric"),
}


def check_program(program: Any) -> str:
    """The name of a program. Raises GraphError unless it can be called without arguments."""
    expected = "expected a program, a function of source and mix sites,"
    if isclass(program):
        raise GraphError(
            f"{expected} got the class '{program.__name__}'. Pass a function; an object of the "
            f"class, {program.__name__}(), will do where it has a __call__ that declares the sites."
        )
    if not callable(program):
        raise GraphError(
            f"{expected} got {type(program).__name__}. Pass the function itself, "
            "compile_program(trio), neither its name nor what it returns."
        )
    name = getattr(program, "__name__", type(program).__name__)
    try:
        signature(program).bind()
    except TypeError as error:
        raise GraphError(
            f"program '{name}' is {error}; a mixing program takes none. Wrap it, as in "
            f"lambda: {name}(...), or call it where it returns a program, as in chain(3)."
        ) from error
    except ValueError:  # a builtin that does not say what it takes
        pass
    return str(name)


@contextmanager
def explained(program: str) -> Iterator[None]:
    """Turns the slips that beginners make inside a program into sentences; other errors pass."""
    try:
        yield
    except NameError as error:
        name = error.name or next(iter(re.findall("'([^']+)'", str(error))), "?")
        raise GraphError(
            f"program '{program}' uses the name '{name}' before it has a value. A site is declared "
            f"above the line that takes it, {name} = source('{name}'), and helpers are imported: "
            "from mlass_ppl import mix, source."
        ) from error
    except RecursionError as error:
        raise GraphError(
            f"program '{program}' calls itself without end. A helper that mixes recursively needs "
            "a case that stops, as: if n == 1: return source('a_1')."
        ) from error
    except TypeError as error:
        if found := re.match(r"(source|mix)\(\) got an unexpected keyword.* '(\w+)'", str(error)):
            raise GraphError(f"in '{program}', {_option(*found.groups())}") from error
        raise


def _option(call: str, option: str) -> str:
    """What to write for an option that `source` or `mix` does not have."""
    known = ", ".join(f"{name}=" for name in _OPTIONS[call])
    start = f"{call}(...) has no option {option}=; "
    if option == "obs":
        return start + (
            "what is observed is the mixture that the program returns, and its value is given when "
            "the program is used, as evidence={'m': ...}."
        )
    if other := [name for name, options in _OPTIONS.items() if option in options]:
        return start + f"{option}= belongs to {other[0]}(...). It has {known}."
    close = get_close_matches(option, _OPTIONS[call], n=1)
    return start + (f"did you mean {close[0]}=? It has {known}." if close else f"it has {known}.")


def refused_return(program: str, value: object) -> str:
    """Why a value cannot be what a program observes."""
    expected = "expected the observed mixture site (or a tuple of them), as in: "
    example = "return mix('mixture', a, b)."
    if value is None:
        return f"program '{program}' returned None; {expected}{example} Is its `return` missing?"
    if isinstance(value, dict):
        return (
            f"program '{program}' returned a dict; {expected}return left, right. Sites keep the "
            "names that they were declared under."
        )
    if isgenerator(value):
        return f"program '{program}' is a generator (it uses yield); {expected}{example}"
    if isinstance(value, str):
        return (
            f"program '{program}' returned the string '{value}'; {expected}{example} That is the "
            "value that mix(...) gave, not its name."
        )
    return f"program '{program}' returned {value!r}; {expected}{example}"
