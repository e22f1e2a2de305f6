"""Inference engines: frozen configurations behind one interface."""

from .base import Engine as Engine
from .base import Plan as Plan
from .base import Posterior as Posterior
from .bp import BP as BP
from .exact import Exact as Exact
from .extractor import Extractor as Extractor
from .toy import posterior as posterior
