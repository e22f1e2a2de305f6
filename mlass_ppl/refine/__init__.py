"""What may follow a separation: the chosen candidate's signals brought nearer to the mixture."""

from .base import Refinement as Refinement
from .best import BestOf as BestOf
from .conditional import Conditional as Conditional
from .descent import Refine as Refine
from .descent import refine as refine
from .learned import Learned as Learned
from .network import Refiner as Refiner
from .network import RefinerConfig as RefinerConfig
