"""Sound: files and sample rates, long signals in segments, spectra and the Wiener post-filter."""

from ._decode import AudioInfo as AudioInfo
from ._decode import audio_info as audio_info
from .read import Audio as Audio
from .read import AudioStream as AudioStream
from .read import read_audio as read_audio
from .resample import resample as resample
from .resample import resampled as resampled
from .resample import resampled_length as resampled_length
from .segments import Segment as Segment
from .segments import Segments as Segments
from .stft import STFT as STFT
from .wiener import Wiener as Wiener
from .write import AudioWriter as AudioWriter
from .write import write_audio as write_audio
from .write import write_stems as write_stems
