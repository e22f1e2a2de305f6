"""LASS's VQ-VAE from its published weights."""

from __future__ import annotations

from pathlib import Path

from ..codecs import LassVQVAE, LassVQVAEConfig
from ..errors import BundleError
from .tensors import build, is_matrix, read_state

_BOOK = "codeBook.embedding.weight"


def read_vqvae(path: Path, size: int) -> LassVQVAE:
    """The codec in a state dict of LASS's VQ-VAE, for grey images of size x size pixels.

    K and the width are those of its codes, [K, width]. The size is no part of the weights: the
    number of tokens that the prior knows tells it. Raises BundleError, naming the file, when it is
    missing or damaged, or holds another model.
    """
    state = read_state(path)
    if _BOOK not in state or not is_matrix(state[_BOOK]):
        raise BundleError(
            f"{path} is no VQ-VAE of LASS: it has no codes '{_BOOK}' [K, width], but "
            f"'{next(iter(state))}' and {len(state) - 1} others. Is it the file of the prior? The "
            "VQ-VAE's is vqvae/256-sigmoid-big.pt; name it with --vqvae."
        )
    alphabet, width = state[_BOOK].shape
    state["codebook.weight"] = state.pop(_BOOK)
    config = LassVQVAEConfig(size, alphabet, width)
    return build(lambda: LassVQVAE(config), state, path)
