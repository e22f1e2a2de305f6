"""Stems written to files while they come, in constant memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..audio import AudioStream, AudioWriter, read_audio
from ..audio.write import Clip, Encoding
from ..errors import OptionError
from .parts import check_names


@dataclass(frozen=True)
class StemFiles:
    """Where stems go: `folder`/{stem}`suffix`.

    suffix: .wav, .flac, .ogg or .mp3. encoding: 'float32' (WAV's default) or 'int16' (FLAC's, and
    WAV's if asked for). clip: what becomes of samples beyond full scale, in all encodings but
    float32, which keeps them: 'rescale' turns all stems down alike, 'clamp' cuts them off. force:
    whether files that exist are replaced. Raises OptionError on unknown values.
    """

    folder: str | Path
    suffix: str = ".wav"
    encoding: Encoding | None = None
    clip: Clip = "rescale"
    force: bool = False

    def __post_init__(self) -> None:
        if self.clip not in ("rescale", "clamp"):
            raise OptionError(f"clip is 'rescale' or 'clamp', got {self.clip!r}.")
        self._writer(Path("any"), 1, 1, 1)

    def places(self, names: Sequence[str]) -> dict[str, Path]:
        """The file of each stem. Raises OptionError where a name cannot be a file's, and where a
        file exists and is kept."""
        check_names(names)
        folder = Path(self.folder)
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"'{folder}' is a file; expected a folder to write stems to.")
        places = {name: folder / name for name in names}
        return {name: self._writer(path, 1, 1, 1).path for name, path in places.items()}

    def write(
        self, names: Sequence[str], blocks: Iterable[Tensor], rate: int, channels: int, frames: int
    ) -> tuple[str, ...]:
        """Write blocks [stems, channels, t] that are `frames` long together. Returns a sentence on
        what was done to them, if anything. On any error, Ctrl-C too, no file is left or changed."""
        places = self.places(names)
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # opened before the first block comes: what cannot be written should not cost the wait
            writers = [
                stack.enter_context(self._writer(folder / name, rate, channels, frames))
                for name in places
            ]
            if self.clip == "clamp" or writers[0].encoding == "float32":
                gain = 1.0
                _spread(blocks, writers)
            else:
                scratch = Path(stack.enter_context(_scratch(folder)))
                gain = _rescaled(blocks, writers, scratch, frames)
        if gain != 1.0:
            return (f"turned down to {gain:.4g} of its level: a stem peaked at {1 / gain:.4g}",)
        clamped = sum(writer.clamped for writer in writers)
        return (f"{clamped:,} samples beyond full scale were cut off",) if clamped else ()

    def _writer(self, path: Path, rate: int, channels: int, frames: int) -> AudioWriter:
        path = path.with_name(f"{path.name}{self.suffix}")
        encoding, force = self.encoding, self.force
        return AudioWriter(path, rate, channels, encoding=encoding, frames=frames, force=force)


class StoredStems(Mapping[str, Tensor]):
    """Stems in their files: {name: [channels, T]}, read each time that one is asked for."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.places = dict(places)

    def __getitem__(self, name: str) -> Tensor:
        return read_audio(self.places[name]).samples

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=".scratch-", dir=folder)


def _spread(blocks: Iterable[Tensor], writers: Sequence[AudioWriter]) -> float:
    """Each stem of the blocks to its writer. Returns the largest sample."""
    peak = 0.0
    for block in blocks:
        peak = max(peak, float(block.abs().max()))
        for stem, writer in zip(block, writers, strict=True):
            writer.write(stem)
    return peak


def _rescaled(
    blocks: Iterable[Tensor], writers: Sequence[AudioWriter], scratch: Path, frames: int
) -> float:
    """Write the blocks turned down, all alike, until the largest sample fits; only at the end is it
    known. Returns the gain."""
    copies = [
        AudioWriter(scratch / f"{place}.wav", writer.rate, writer.channels, frames=frames)
        for place, writer in enumerate(writers)
    ]
    with ExitStack() as stack:
        for copy in copies:
            stack.enter_context(copy)
        peak = _spread(blocks, copies)
    gain = 1.0 if peak <= 1.0 else 1.0 / peak
    for copy, writer in zip(copies, writers, strict=True):
        for block in AudioStream(copy.path).blocks():
            writer.write(block * gain)
        copy.path.unlink()
    return gain
