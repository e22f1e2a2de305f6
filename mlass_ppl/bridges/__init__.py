"""Mixing graphs for other libraries and from them: networkx, pgmpy, Pyro, UAI files."""

from .networkx import from_networkx as from_networkx
from .networkx import to_networkx as to_networkx
from .pgmpy import from_pgmpy as from_pgmpy
from .pgmpy import from_pgmpy_factors as from_pgmpy_factors
from .pgmpy import to_pgmpy_factors as to_pgmpy_factors
from .pgmpy import to_pgmpy_network as to_pgmpy_network
from .pyro import from_pyro as from_pyro
from .pyro import to_pyro as to_pyro
from .uai import read_uai as read_uai
from .uai import write_uai as write_uai
