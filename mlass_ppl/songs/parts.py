"""What comes out of a song: its stems, or one of them and all the rest, and what is left over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import OptionError

_REST, _RESIDUAL = "no_", "residual"


@dataclass(frozen=True)
class Parts:
    """Which signals are made of a song's stems.

    stems: their names, in order. two: the name of one stem, where that one and `no_{two}`, the
    mixture without it, are all that is wanted. residual: whether what the stems do not explain of
    the mixture comes as well. Raises OptionError on an unknown stem and on names that collide.
    """

    stems: tuple[str, ...]
    two: str | None = None
    residual: bool = False

    def __post_init__(self) -> None:
        if self.two is not None and self.two not in self.stems:
            raise OptionError(
                f"two_stems takes one of the stems {', '.join(self.stems)}; got {self.two!r}."
            )
        if self.two is not None and self.residual:
            raise OptionError(
                f"{self.two} and {_REST}{self.two} sum to the mixture: there is no residual. Leave "
                "one of two_stems and residual out."
            )
        if self.residual and _RESIDUAL in self.stems:
            raise OptionError(f"a stem is called '{_RESIDUAL}' itself; rename it in the program.")

    @property
    def names(self) -> tuple[str, ...]:
        if self.two is not None:
            return (self.two, f"{_REST}{self.two}")
        return (*self.stems, _RESIDUAL) if self.residual else self.stems

    def __call__(self, stems: Tensor, mixture: Tensor) -> Tensor:
        """The signals of `names` [k, channels, t] of stems [n, channels, t] and their mixture."""
        if self.two is not None:
            one = stems[self.stems.index(self.two)]
            return torch.stack([one, mixture - one])
        if self.residual:
            return torch.cat([stems, (mixture - stems.sum(0))[None]])
        return stems


def beside(stems: Iterable[Tensor], mixture: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """A stream of stems [n, ..., t] in blocks as long as those of their mixture [channels, t], as
    pairs: stems [n, channels, t] (mono ones in every channel) and mixture. Stems that end before
    the mixture, as by rounding when they are resampled, are filled with zeros."""
    pieces, held = iter(stems), None
    for block in mixture:
        size = block.shape[-1]
        while held is None or held.shape[-1] < size:
            piece = next(pieces, None)
            if piece is None:
                break
            held = piece if held is None else torch.cat([held, piece], -1)
        assert held is not None  # a recording has samples, and so have its stems
        ready, held = held[..., :size], held[..., size:]
        ready = pad(ready, (0, size - ready.shape[-1]))
        ready = ready[:, None] if ready.ndim == 2 else ready
        yield ready.expand(-1, len(block), -1), block


def check_names(names: Sequence[str]) -> None:
    """Raise OptionError when a name cannot be that of a file."""
    for name in names:
        if name in ("", ".", "..") or set(name) & set('/\\:*?"'):
            raise OptionError(
                f"stem {name!r} cannot be the name of a file. Rename it in the program."
            )
