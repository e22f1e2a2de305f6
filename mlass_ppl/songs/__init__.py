"""Songs: recordings of any length, rate and number of channels taken apart into stem files."""

from .files import StemFiles as StemFiles
from .recording import Recording as Recording
from .separate import separate_song as separate_song
from .song import Song as Song
