"""Training of codecs and priors (Lightning)."""

from .codec import psnr_of as psnr_of
from .codec import train_codec as train_codec
from .labels import add_labels as add_labels
from .prior import nats_of as nats_of
from .prior import train_prior as train_prior
