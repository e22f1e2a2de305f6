"""The network of an audio codec: what the codes around a frame add to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def audio_decoder(latent: int, width: int, blocks: int, hop: int) -> nn.Sequential:
    """A network from latents [B, latent, T] to signals [B, 1, hop T]. Untrained, it gives zeros."""
    last: Any = nn.ConvTranspose1d(width, 1, 2 * hop, stride=hop, padding=hop // 2)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv1d(latent, width, 3, padding=1),
        *(_Residual(width, 3 ** (block % 3)) for block in range(blocks)),
        nn.SiLU(),
        # Each code writes half a frame into its neighbours' too, so that frames join smoothly.
        last,
    )
