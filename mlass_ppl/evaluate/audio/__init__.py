"""Scores of separated audio: SDR and its kin, log-mel distance, floors and the mask oracle; and
data sets of stems to evaluate on."""

from .baseline import Baseline as Baseline
from .masks import PostFilter as PostFilter
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
from .selection import recordings as recordings
from .selection import song_chunks as song_chunks
from .stimuli import STEMS as STEMS
from .stimuli import StemStimuli as StemStimuli
from .stimuli import stems_of as stems_of
