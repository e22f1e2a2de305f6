"""Priors: autoregressive models of the sources."""

from .base import Prior as Prior
from .base import State as State
from .base import score as score
from .causal_lm import CausalLM as CausalLM
from .causal_lm import gpt2_config as gpt2_config
from .ngram import NGram as NGram
