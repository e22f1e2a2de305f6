"""Searches over token sequences."""

from .base import Search as Search
from .base import Step as Step
from .sample import Sample as Sample
from .smc import SMC as SMC
