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
    """A continuous feature x in R^D with a Gaussian table p(x | parents).

    The site has no token and is no parent of another site. power: exponent of the density, as for
    `Token`. linear: where a feature is linear in the signal, and the parents have no source in
    common, the moments of a mixture are weighted sums of those of its parents. The table is then a
    `LinearGaussianTable`, put together from each parent's mean and covariance given its own token:
    full covariances, any number of parents, and one count of a source serves every mixture of it.
    Else it is a `GaussianTable`, diagonal and counted for every configuration of the parents.
    """

    power: float = 1.0
    linear: bool = False

    def __post_init__(self) -> None:
        _check_power(self)
        if not isinstance(self.linear, bool):
            raise GraphError(f"Feature(linear=...) must be True or False, got {self.linear!r}.")


Evidence = Token | Soft | Feature


def _check_power(evidence: Token | Feature) -> None:
    if not 0 < evidence.power < float("inf"):
        raise GraphError(
            f"{type(evidence).__name__}(power=...) must be positive and finite, got "
            f"{evidence.power!r}."
        )
