"""Training of codecs, priors and refiners (Lightning)."""

from .affine import augment as augment
from .codec import psnr_of as psnr_of
from .codec import train_codec as train_codec
from .continued import continue_prior as continue_prior
from .examples import Examples as Examples
from .labels import add_labels as add_labels
from .prior import nats_of as nats_of
from .prior import train_prior as train_prior
from .refiner import refined_psnr as refined_psnr
from .refiner import train_refiner as train_refiner
from .separating import make_examples as make_examples
