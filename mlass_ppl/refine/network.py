"""A small convolutional network that corrects every source of a separation from what the others
leave of the mixture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from ..errors import OptionError, SignalError
from .views import FEATURES, balanced, features, trust


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of a `Refiner`. width: channels at half the resolution; at a quarter there are twice as
    many. depth: residual blocks in each of its three stages."""

    width: int = 48
    depth: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(
                    f"RefinerConfig({name}=...) must be a whole number, at least 1, got {value!r}."
                )


class Refiner(nn.Module):
    """Corrects the estimates of n sources of one mixture, the same network for each of them.

    Every source is seen as `features` describe it from each observed signal: itself, the others,
    what the mixture has left. In between, the sources tell each other what they found: each gets
    the mean over the others, so the answer of a source does not depend on their order or number.
    What comes out is added to the estimates, and they are balanced to add up to what was observed
    (`balanced`), a data consistency step (Schlemper et al., 2017, arXiv:1704.02422).

    The last layer starts at zero: an untrained refiner only balances.
    """

    def __init__(self, config: RefinerConfig | None = None) -> None:
        super().__init__()
        self.config = config or RefinerConfig()
        width, depth = self.config.width, self.config.depth
        self.enter = nn.Conv2d(4 * FEATURES, width, 3, padding=1)
        self.before, self.after = _stage(width, depth), _stage(width, depth)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.deep = _stage(2 * width, depth)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.exchanges = nn.ModuleList(
            [nn.Conv2d(size, size, 1) for size in (width, 2 * width, width)]
        )
        self.leave = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)

    def describe(self) -> dict[str, Any]:
        """Kind and sizes, as a bundle's card tells them."""
        return {"kind": "refiner", **asdict(self.config)}

    def forward(
        self,
        estimates: Tensor,
        observed: Tensor,
        weights: Tensor,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Refined estimates float [B, n, 1, S, S] in [0, 1].

        estimates: [B, n, 1, S, S] in [0, 1], S a multiple of 4. observed: the mixture, [B, 1, S,
        S], or several observed signals, [B, O, 1, S, S]. weights: of each source in the mixture,
        [n] or [B, n], or in each signal, [O, n] or [B, O, n]; 0 where it is not in it. counts: how
        much each of O signals counts, [O] (default: the same). The corrections that each signal
        asks for are averaged over the signals that hold the source, by their counts; a source of no
        weight at all stays as it is. Raises SignalError on other shapes.
        """
        return balanced(*self._draft(estimates, observed, weights, counts), rounds=3)

    def draft(
        self,
        estimates: Tensor,
        observed: Tensor,
        weights: Tensor,
        counts: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, balanced once and not cut to [0, 1], so that training has a gradient
        everywhere."""
        return balanced(*self._draft(estimates, observed, weights, counts), rounds=0)

    def _draft(
        self, estimates: Tensor, observed: Tensor, weights: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Corrected estimates, with observed signals [B, O, 1, S, S] and weights [B, O, n]."""
        if observed.ndim == 4:
            observed, weights = observed[:, None], weights[..., None, :]
        _check(estimates, observed, weights)
        weights = weights.expand(len(estimates), *weights.shape[-2:])
        estimates = estimates.clamp(0, 1)
        seen = features(estimates, observed, weights)  # [B, O, n, F, S, S]
        correction = self._correct(seen, (weights > 0).float())
        parts = trust(weights, counts)[..., None, None, None]
        return estimates + (parts * correction).sum(1), observed, weights

    def _correct(self, seen: Tensor, present: Tensor) -> Tensor:
        """Corrections [B, O, n, 1, S, S] that each observed signal asks for."""
        sizes, held = seen.shape[:3], present.flatten(0, 1)

        def exchange(values: Tensor, layer: nn.Module) -> Tensor:
            own = values.unflatten(0, held.shape) * held[..., None, None, None]
            others = (held.sum(1, keepdim=True) - held).clamp_min(1)[..., None, None, None]
            mean = (own.sum(1, keepdim=True) - own) / others
            told: Tensor = layer(silu(mean.flatten(0, 1)))
            return values + told

        first, second, third = self.exchanges
        fine = exchange(self.before(self.enter(pixel_unshuffle(seen.flatten(0, 2), 2))), first)
        coarse = self.deep(exchange(self.down(silu(fine)), second))
        fine = self.after(exchange(fine + self.up(silu(coarse)), third))
        return pixel_shuffle(self.leave(silu(fine)), 2).float().unflatten(0, sizes)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        change: Tensor = self.second(silu(self.first(silu(values))))
        return values + change


def _stage(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(depth)))


def _check(estimates: Tensor, observed: Tensor, weights: Tensor) -> None:
    given = tuple(map(tuple, (estimates.shape, observed.shape, weights.shape)))
    fits = estimates.ndim == 5 and observed.ndim == 5 and 2 <= weights.ndim <= 3
    if fits:
        b, n, *signal = estimates.shape
        fits = (
            signal[0] == 1
            and not (signal[1] % 4 or signal[2] % 4)
            and tuple(observed.shape) == (b, observed.shape[1], *signal)
            and tuple(weights.shape[-2:]) == (observed.shape[1], n)
            and (weights.ndim == 2 or len(weights) in (1, b))
        )
    if not fits:
        raise SignalError(
            "a refiner takes estimates [B, n, 1, S, S], S a multiple of 4, observed signals [B, O, "
            f"1, S, S] and weights [O, n] or [B, O, n]; got {given[0]}, {given[1]} and {given[2]}."
        )
