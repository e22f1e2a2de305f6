"""Conv-TasNet with a fixed output for each stem, and its weights on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from mlass_ppl.errors import BundleError, MlassError, OptionError, SignalError
from mlass_ppl.weights import load_weights, save_weights

CARD, WEIGHTS = "model.json", "model.safetensors"


@dataclass(frozen=True)
class ConvTasNetConfig:
    """stems: what each output is. sample_rate: of the signals, Hz. kernel: samples of the encoder's
    filters, with a hop of half of it; filters: how many of them. bottleneck, hidden: channels of
    the mask network between and within its blocks; layers: blocks of dilation 1, 2, 4, ..., which
    are repeated `stacks` times. The names are those of `torchaudio.models.ConvTasNet`, shortened.

    Raises OptionError on impossible sizes.
    """

    stems: tuple[str, ...]
    sample_rate: int = 22_050
    kernel: int = 128
    filters: int = 256
    bottleneck: int = 96
    hidden: int = 192
    layers: int = 7
    stacks: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "stems", tuple(self.stems))
        sizes = {k: v for k, v in asdict(self).items() if k != "stems"}
        if len(self.stems) < 2 or min(sizes.values()) < 1 or self.kernel % 2:
            raise OptionError(
                "ConvTasNetConfig takes two or more stems, an even kernel and sizes of at least 1, "
                f"got {self}."
            )


class StemSeparator(nn.Module):
    """Conv-TasNet whose estimates add up to the mixture.

    Source: Luo and Mesgarani, "Conv-TasNet", 2019, in torchaudio's form; the sum is that of Wisdom
    et al., "Differentiable consistency constraints", 2019, without weights. It takes no estimate
    further from the truth in total, for the true stems lie in that plane.

    Raises MlassError where torchaudio does not import.
    """

    def __init__(self, config: ConvTasNetConfig) -> None:
        super().__init__()
        try:
            from torchaudio.models import ConvTasNet
        except Exception as error:  # a wheel for CUDA beside a CPU torch fails in several ways
            raise MlassError(
                f"Conv-TasNet is that of torchaudio, which does not import here ({error}). Make "
                "the environment of all extras: make test-full."
            ) from error
        self.config = config
        self.net = ConvTasNet(
            num_sources=len(config.stems),
            enc_kernel_size=config.kernel,
            enc_num_feats=config.filters,
            msk_num_feats=config.bottleneck,
            msk_num_hidden_feats=config.hidden,
            msk_num_layers=config.layers,
            msk_num_stacks=config.stacks,
            msk_activate="relu",
        )

    def forward(self, mixtures: Tensor) -> Tensor:
        """Stems [B, n, T] of mixtures [B, T] that are the mean of their stems.

        Raises SignalError on another shape.
        """
        if mixtures.ndim != 2 or not mixtures.shape[-1]:
            raise SignalError(
                f"mixtures are [B, T] with one or more samples, not {tuple(mixtures.shape)}."
            )
        total = mixtures.unsqueeze(1) * len(self.config.stems)
        estimates = self.net(total).float()
        return estimates + (total - estimates.sum(1, keepdim=True)) / len(self.config.stems)

    def save(self, folder: Path) -> None:
        """Write sizes and weights (float16). Raises BundleError where a weight is not finite."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self, folder / WEIGHTS)
        (folder / CARD).write_text(json.dumps(asdict(self.config), indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> StemSeparator:
        """Read what `save` wrote, ready to separate. Raises BundleError when it cannot be read."""
        try:
            config = ConvTasNetConfig(**json.loads((folder / CARD).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(
                f"'{folder / CARD}' cannot be read ({error}); expected the folder that "
                "`python -m benchmarks.conv_tasnet train --out` wrote."
            ) from error
        model = cls(config)
        load_weights(model, folder / WEIGHTS)
        return model
