"""Searches over token sequences."""

from .base import Search as Search
from .base import Step as Step
from .beam import Beam as Beam
from .greedy import Greedy as Greedy
from .sample import Sample as Sample
from .smc import SMC as SMC
