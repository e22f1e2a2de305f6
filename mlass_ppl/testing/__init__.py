"""Oracles and checks for engines, priors and codecs, one's own included.

    check_engine(MyEngine())           # searches random graphs for one that it gets wrong
    check_prior(my_prior)
    check_codec(my_codec, signals)

They raise AssertionError that says what was expected, what came and what to mend. `random_graph`
and `random_problem` are strategies of hypothesis, which is imported when they are called.
"""

from .brute import BruteForce as BruteForce
from .brute import brute_force as brute_force
from .calibration import RankHistogram as RankHistogram
from .calibration import rank_histogram as rank_histogram
from .codecs import check_codec as check_codec
from .engines import check_engine as check_engine
from .priors import check_prior as check_prior
from .problems import Problem as Problem
from .problems import random_graph as random_graph
from .problems import random_problem as random_problem
