"""Codecs with a format on disk."""

from __future__ import annotations

from typing import Any

from .audio import AudioVQ, AudioVQConfig
from .image import ImageVQVAE, ImageVQVAEConfig
from .lass import LassVQVAE, LassVQVAEConfig
from .patches import PatchCodec, PatchCodecConfig

StoredCodec = ImageVQVAE | LassVQVAE | PatchCodec | AudioVQ

KINDS: dict[str, tuple[type[StoredCodec], type[Any]]] = {
    "image-vqvae": (ImageVQVAE, ImageVQVAEConfig),
    "lass-vqvae": (LassVQVAE, LassVQVAEConfig),
    "patches": (PatchCodec, PatchCodecConfig),
    "audio-vq": (AudioVQ, AudioVQConfig),
}
"""Class and configuration, by the kind that `describe` tells."""
