"""Codecs: signals to tokens and back."""

from .base import Codec as Codec
from .base import FeatureCodec as FeatureCodec
from .base import SoftCodec as SoftCodec
from .encoding import encode_features as encode_features
from .encoding import encode_tokens as encode_tokens
from .encoding import encode_weights as encode_weights
from .encoding import tokens_of as tokens_of
from .grey import GreyVQVAE as GreyVQVAE
from .image import ImageVQVAE as ImageVQVAE
from .image import ImageVQVAEConfig as ImageVQVAEConfig
from .lass import LassVQVAE as LassVQVAE
from .lass import LassVQVAEConfig as LassVQVAEConfig
from .patches import PatchCodec as PatchCodec
from .patches import PatchCodecConfig as PatchCodecConfig
