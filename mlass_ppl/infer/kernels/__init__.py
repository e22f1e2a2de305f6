"""Contractions of a table with messages: linear, dense or over seen cells, and in logarithms."""

from .base import Kernel as Kernel
from .dense import DenseKernel as DenseKernel
from .likelihood import LikelihoodKernel as LikelihoodKernel
from .sliced import SlicedKernel as SlicedKernel
from .sparse import SparseKernel as SparseKernel
from .structured import StructuredKernel as StructuredKernel
