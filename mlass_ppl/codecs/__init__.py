"""Codecs: signals to tokens and back."""

from .base import Codec as Codec
from .image import ImageVQVAE as ImageVQVAE
from .image import ImageVQVAEConfig as ImageVQVAEConfig
