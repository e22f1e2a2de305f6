"""MIDI to sound with the FluidSynth program and a SoundFont."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from ...audio import read_audio
from ...errors import DataError, OptionError

_PLACES = (
    "/usr/share/sounds/sf2/default-GM.sf2",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/sounds/sf2/TimGM6mb.sf2",
    "/usr/share/soundfonts/default.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
)
_INSTALL = (
    "Debian and Ubuntu: apt install fluidsynth fluid-soundfont-gm; Fedora: dnf install fluidsynth "
    "fluid-soundfont-gm; macOS: brew install fluid-synth, and a SoundFont such as GeneralUser GS"
)
_KINDS = ((b"RIFF", b"sfbk"), (b"RIFF", b"DLS "))


@dataclass(frozen=True)
class FluidSynth:
    """How to play MIDI. soundfont: a General MIDI SoundFont (.sf2, .sf3) or DLS file; None takes
    the system's. rate: in Hz. gain: FluidSynth's, the same for every stem of a song.

    Raises OptionError on impossible values.
    """

    soundfont: Path | None = None
    rate: int = 22_050
    gain: float = 0.2

    def __post_init__(self) -> None:
        if not 8_000 <= self.rate <= 96_000:
            raise OptionError(f"FluidSynth plays at 8,000 to 96,000 Hz; got a rate of {self.rate}.")
        if not 0 < self.gain <= 10:
            raise OptionError(f"FluidSynth(gain=...) lies in (0, 10], got {self.gain}.")

    def ready(self) -> tuple[str, Path]:
        """The program and the SoundFont. Raises DataError saying how to install what is missing."""
        program = shutil.which("fluidsynth")
        if program is None:
            raise DataError(f"the program fluidsynth is not on the PATH. Install it. {_INSTALL}.")
        given = [self.soundfont] if self.soundfont is not None else [Path(p) for p in _PLACES]
        found = next((path for path in given if path.is_file()), None)
        if found is None:
            what = f"there is no SoundFont '{given[0]}'" if self.soundfont else "no SoundFont is in"
            where = "" if self.soundfont else " the usual places; give one with --soundfont"
            raise DataError(f"{what}{where}. {_INSTALL}.")
        with found.open("rb") as file:
            head = file.read(12)
        if (head[:4], head[8:]) not in _KINDS:
            raise DataError(f"'{found}' is no SoundFont (.sf2, .sf3, .dls), or it is damaged.")
        return program, found

    def play(self, midi: Path) -> Tensor:
        """A MIDI file as float32 [samples], mono, at any level. Same file, same samples.

        Raises DataError when FluidSynth fails, or as `ready` does.
        """
        program, soundfont = self.ready()
        with TemporaryDirectory(prefix="mlass-") as folder:
            wave, settings = Path(folder) / "out.wav", Path(folder) / "settings"
            settings.touch()  # else those of the machine or the user would change the sound
            command = [
                *(program, "-ni", "-q", "-f", str(settings), "-F", str(wave), "-T", "wav"),
                *("-O", "float", "-r", str(self.rate), "-g", str(self.gain)),
                *(str(soundfont.resolve()), str(midi.resolve())),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            complaint = [line for line in done.stderr.splitlines() if "error:" in line.lower()]
            if done.returncode or complaint or not wave.is_file():
                raise DataError(
                    f"fluidsynth could not play '{midi}' with '{soundfont}' (exit code "
                    f"{done.returncode}): {' '.join(complaint[:2]) or done.stderr[-300:].strip()}"
                )
            return read_audio(wave, mono=True).samples[0]
