"""LASS's prior, a GPT-2 of Hugging Face's, from its published weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..errors import BundleError
from ..priors import CausalLM, gpt2_config
from .tensors import build, is_matrix, read_state

HEADS, BEGIN = 2, 0
"""Attention heads and begin token of the published prior, which its weights do not tell."""

_WORDS, _PLACES = "transformer.wte.weight", "transformer.wpe.weight"
_HEAD = "lm_head.weight"
_LAYER = re.compile(r"transformer\.h\.(\d+)\.")
_MASKS = (".attn.bias", ".attn.masked_bias")
"""Causal masks, which transformers stored beside the weights up to version 4.30."""


def read_gpt2(path: Path, heads: int = HEADS) -> CausalLM:
    """The prior in a state dict of a `GPT2LMHeadModel`, which begins with token 0, a code as well.

    K, the number of tokens, the width and the number of layers are those of the weights; the number
    of heads is not among them. Raises BundleError, naming the file, when it is missing or damaged,
    holds another model, or cannot have that many heads.
    """
    from transformers import GPT2LMHeadModel

    state = {name: value for name, value in read_state(path).items() if not name.endswith(_MASKS)}
    if any(name not in state or not is_matrix(state[name]) for name in (_WORDS, _PLACES)):
        raise BundleError(
            f"{path} is no GPT-2: it lacks '{_WORDS}' [K, width] or '{_PLACES}' [tokens, width], "
            f"and has '{next(iter(state), 'nothing')}'. Is it the file of the VQ-VAE? The prior's "
            "is unconditioned/256-sigmoid-big.pt; name it with --prior."
        )
    alphabet, width = state[_WORDS].shape
    if heads < 1 or width % heads:
        raise BundleError(
            f"{path} is {width} wide, which {heads} attention heads cannot share evenly. The "
            f"published prior has {HEADS}; give the number with --heads."
        )
    if not torch.equal(state.setdefault(_HEAD, state[_WORDS]), state[_WORDS]):
        raise BundleError(
            f"'{_HEAD}' of {path} is not '{_WORDS}'. The published prior ties them, and a bundle "
            "stores one of them; a prior with an output layer of its own cannot be imported."
        )
    layers = len({found[1] for name in state if (found := _LAYER.match(name))})
    length = state[_PLACES].shape[0]
    config = gpt2_config(alphabet, length, width=width, layers=layers, heads=heads, begin=BEGIN)
    model = build(lambda: GPT2LMHeadModel(config), state, path)
    return CausalLM(model, alphabet, begin=BEGIN)
