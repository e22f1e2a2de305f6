"""Files of the layout that LASS and MLASS published, with random weights and made-up counts.

Names and shapes are those of the published state dicts; the models of this package are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

K, WIDTH, TOKENS = 6, 8, 9
NAME = "256-sigmoid-big.pt"


def vqvae_state(alphabet: int = K, width: int = WIDTH, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) / max(1.0, shape[0] ** 0.5)

    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int, side: int, bias: int | None = None) -> None:
        state[f"{name}.weight"] = weights(out, into, side, side)
        state[f"{name}.bias"] = weights(out if bias is None else bias)

    def norm(name: str) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = weights(width) + 1, weights(width)
        state[f"{name}.running_mean"] = weights(width)
        state[f"{name}.running_var"] = weights(width).square() + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(937)

    def residual(name: str) -> None:
        conv(f"{name}.block.1", width, width, 3)
        norm(f"{name}.block.2")
        conv(f"{name}.block.4", width, width, 1)
        norm(f"{name}.block.5")

    conv("encoder.0", width, 1, 4)
    norm("encoder.1")
    conv("encoder.3", width, width, 4)
    residual("encoder.4")
    residual("encoder.5")
    state["codeBook.embedding.weight"] = 2 * torch.randn(alphabet, width, generator=random)
    residual("decoder.0")
    residual("decoder.1")
    conv("decoder.3", width, width, 4)
    norm("decoder.4")
    conv("decoder.6", width, 1, 4, bias=1)
    return state


def gpt2_state(
    alphabet: int = K, length: int = TOKENS, width: int = WIDTH, layers: int = 3, seed: int = 1
) -> dict[str, Tensor]:
    """As transformers 4.20 wrote it, with the causal masks beside the weights."""
    random = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=random)

    state = {
        "transformer.wte.weight": weights(alphabet, width),
        "transformer.wpe.weight": weights(length, width),
    }

    def norm(name: str) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = weights(width) + 1, weights(width)

    for layer in range(layers):
        name = f"transformer.h.{layer}"
        norm(f"{name}.ln_1")
        mask = torch.ones(length, length, dtype=torch.uint8).tril()[None, None]
        state[f"{name}.attn.bias"] = mask
        state[f"{name}.attn.masked_bias"] = torch.tensor(-1e4)
        for part, into, out in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            state[f"{name}.{part}.weight"] = weights(into, out)
            state[f"{name}.{part}.bias"] = weights(out)
        norm(f"{name}.ln_2")
    norm("transformer.ln_f")
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def counts(*shape: int, seed: int = 2) -> Tensor:
    """Float counts, as theirs."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, shape, generator=random).float()


def put(value: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    return path


def write_published(folder: Path) -> Path:
    """LASS's three files, and MLASS's two: `folder` is the repository's lass_mnist."""
    put(vqvae_state(), folder / "checkpoints/vqvae" / NAME)
    put(gpt2_state(), folder / "checkpoints/unconditioned" / NAME)
    put(counts(K, K, K), folder / "checkpoints/sum" / NAME)
    put(counts(3, K, K, seed=3), folder / "checkpoints/sum/best_3_sources.pt")
    put(counts(2, K, K, K, seed=4), folder / "models/sums-MNIST-gm/best_210.pt")
    return folder
