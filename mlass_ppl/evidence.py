"""What is observed at an observed site: a token, weights over tokens, or a continuous feature."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import GraphError


@dataclass(frozen=True)
class Token:
    """The site's token itself, as in LASS and MLASS.

    power: exponent of p(token | parents); below 1 it trusts the table less (likelihood tempering).
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        _check_power(self)


@dataclass(frozen=True)
class Soft:
    """Log weights over the site's alphabet (virtual evidence; Pearl, 1988).

    The token stays latent, with these weights beside its table. temperature: that divides the
    codec's log weights; small ones approach the hard token.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise GraphError(
                f"Soft(temperature=...) must be positive and finite, got {self.temperature!r}."
            )


@dataclass(frozen=True)
class Feature:
    """A continuous feature x in R^D with a Gaussian table p(x | parents), counted like the others.

    The site is a `Normal` of the Pyro program; it has no token and is no parent of another site.
    power: exponent of the density, as for `Token`.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        _check_power(self)


Evidence = Token | Soft | Feature


def _check_power(evidence: Token | Feature) -> None:
    if not 0 < evidence.power < float("inf"):
        raise GraphError(
            f"{type(evidence).__name__}(power=...) must be positive and finite, got "
            f"{evidence.power!r}."
        )
