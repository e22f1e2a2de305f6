"""Songs as stems: readers, splits, chunks in which all stems sound, rendering from MIDI, variants.

Sound files are read and written by `mlass_ppl.audio`. Needs the extra [sound].
"""

from .activity import Activity as Activity
from .chunks import Chunks as Chunks
from .chunks import find_chunks as find_chunks
from .dataset import StemDataset as StemDataset
from .fluidsynth import FluidSynth as FluidSynth
from .folders import stem_folders as stem_folders
from .fsdd import fsdd as fsdd
from .instruments import instrument_class as instrument_class
from .level import levelled as levelled
from .level import sounding_level as sounding_level
from .manifest import Origin as Origin
from .manifest import find_songs as find_songs
from .midi import read_midi as read_midi
from .render import Rendered as Rendered
from .render import render_songs as render_songs
from .slakh import slakh as slakh
from .splits import hold_out as hold_out
from .track import Stem as Stem
from .track import Track as Track
from .variants import Varied as Varied
from .variants import song_of as song_of
from .variants import vary_songs as vary_songs
from .vary import vary_song as vary_song
