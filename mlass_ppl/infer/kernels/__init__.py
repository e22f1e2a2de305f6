"""Contractions of a table with messages: linear, dense or over seen cells, and in logarithms."""

from .base import Kernel as Kernel
from .cells import SeenCells as SeenCells
from .dense import DenseKernel as DenseKernel
from .likelihood import LikelihoodKernel as LikelihoodKernel
from .sparse import SparseKernel as SparseKernel
from .structured import StructuredKernel as StructuredKernel
