"""Tables: counts, smoothing, recipes, storage."""

from .counting import count as count
from .counts import Counts as Counts
from .counts import Coverage as Coverage
from .recipe import Recipe as Recipe
from .smoothing import Additive as Additive
from .store import load_counts as load_counts
from .store import save_counts as save_counts
from .table import Table as Table
