"""Scores of separated audio: SDR and its kin, log-mel distance, floors and the mask oracle."""

from .mel import LogMel as LogMel
from .mel import log_mel_l1 as log_mel_l1
from .ratios import CEILING as CEILING
from .ratios import Kept as Kept
from .ratios import Metric as Metric
from .ratios import improvement as improvement
from .ratios import kept as kept
from .ratios import permuted as permuted
from .ratios import sdr as sdr
from .ratios import sdri as sdri
from .ratios import si_sdr as si_sdr
from .ratios import si_sdri as si_sdri
from .references import ideal_ratio_mask as ideal_ratio_mask
from .references import mixture_copy as mixture_copy
from .references import mixture_copy_sdr as mixture_copy_sdr
