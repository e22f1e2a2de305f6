"""Contractions of a table with messages: dense and linear, or sparse and in logarithms."""

from .base import Kernel as Kernel
from .dense import DenseKernel as DenseKernel
from .likelihood import LikelihoodKernel as LikelihoodKernel
from .sparse import SparseKernel as SparseKernel
from .structured import StructuredKernel as StructuredKernel
