"""Inference engines: frozen configurations behind one interface."""

from .auto import Auto as Auto
from .auto import Choice as Choice
from .base import Engine as Engine
from .base import Plan as Plan
from .base import Posterior as Posterior
from .bp import BP as BP
from .exact import Exact as Exact
from .extractor import Extractor as Extractor
from .loopy import LoopyBP as LoopyBP
from .toy import posterior as posterior
from .truncated import Truncated as Truncated
