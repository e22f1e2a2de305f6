"""Searches over token sequences."""

from .base import Search as Search
from .sample import Sample as Sample
