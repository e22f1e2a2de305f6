"""The value of a site while its program is compiled: a name that refuses to be computed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import GraphError

_UNKNOWN = "the value of {site} is not known while the graph is being declared, so "

_TABLE = (
    "mix('m', {name}, ...) declares a table p(m | {name}, ...); its numbers are given "
    "when the program is used, as tables={{'m': ...}}."
)
_BRANCH = (
    _UNKNOWN + "{use}. A program may pass a site to mix(...) and return it, but not compute with "
    "it. To branch, write one program for each case."
)
_NUMBER = (
    _UNKNOWN + "it is no number for int(), float(), range() or an index. Loops and indices take "
    "plain Python numbers, as in: for i in range(3). " + _TABLE
)
_PARTS = (
    "{site} is a single token, not known while the graph is being declared: it has no parts to "
    "{use}. For several sites, declare each under a name of its own: [source(f'{name}_{{i}}') for "
    "i in range(3)]."
)
_SUM = (
    "{site} cannot be computed with ({use}): how sites add up is declared by mix(...). For "
    "0.7 {name} + 0.3 b write mix('m', {name}, b, weights=(0.7, 0.3))."
)
_TENSOR = _UNKNOWN + "torch and NumPy cannot take it, nor can it index a table. " + _TABLE
_ATTRIBUTE = (
    _UNKNOWN + "it has no '{use}'. A program may pass a site to mix(...) and return it, but not "
    "compute with it."
)


def _refusing(sentence: str, use: str = "") -> Callable[..., NoReturn]:
    def refuse(self: Symbol, *_: object) -> NoReturn:
        raise GraphError(sentence.format(site=self, name=self.name, use=use))

    return refuse


class Symbol:
    """Stands for a site's value while a program is compiled."""

    def __init__(self, name: str) -> None:
        self.name = name

    __bool__ = _refusing(_BRANCH, "no `if`, `while`, `and`, `or` or `not` can depend on it")
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refusing(
        _BRANCH, "it cannot be compared"
    )
    __hash__ = object.__hash__  # `==` would else answer False, and an `if` take that branch
    __int__ = __float__ = __index__ = __complex__ = __round__ = _refusing(_NUMBER)
    __getitem__ = _refusing(_PARTS, "index")
    __iter__ = __reversed__ = _refusing(_PARTS, "loop over")
    __contains__ = _refusing(_PARTS, "search")
    __len__ = _refusing(_PARTS, "count with len()")
    __add__ = __radd__ = _refusing(_SUM, "+")
    __sub__ = __rsub__ = __neg__ = _refusing(_SUM, "-")
    __mul__ = __rmul__ = _refusing(_SUM, "*")
    __truediv__ = __rtruediv__ = _refusing(_SUM, "/")
    __floordiv__ = __rfloordiv__ = _refusing(_SUM, "//")
    __mod__ = __rmod__ = _refusing(_SUM, "%")
    __pow__ = __rpow__ = _refusing(_SUM, "**")
    __matmul__ = __rmatmul__ = _refusing(_SUM, "@")
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refusing(_SUM, "&, |, ^")
    __invert__ = _refusing(_SUM, "~")
    __abs__ = __pos__ = _refusing(_SUM, "abs()")
    __call__ = _refusing(_ATTRIBUTE, "call")
    __array__ = _refusing(_TENSOR)

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> NoReturn:
        _refusing(_SUM, ufunc.__name__)(self)

    @classmethod
    def __torch_function__(cls, _: Any, __: Any, args: Any = (), ___: Any = None) -> NoReturn:
        found = _first(args)
        _refusing(_TENSOR)(cls("?") if found is None else found)

    def __format__(self, specification: str) -> str:
        return format(repr(self), "") if not specification else _refusing(_NUMBER)(self)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise GraphError(_ATTRIBUTE.format(site=self, name=self.name, use=attribute))

    def __repr__(self) -> str:
        return f"site '{self.name}'"


def _first(args: Any) -> Symbol | None:
    """The first symbol among a function's arguments, also inside an index."""
    for part in args if isinstance(args, (tuple, list)) else ():
        found = part if isinstance(part, Symbol) else _first(part)
        if found is not None:
            return found
    return None
