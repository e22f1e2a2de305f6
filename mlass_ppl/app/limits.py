"""What the page takes: how large, how long, how many."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import OptionError, SignalError


@dataclass(frozen=True)
class Limits:
    """upload_bytes: of one file. pixels: of an image. sound_seconds: of a sound. seconds: of wall
    time that one separation may take. candidates: of one mixture. waiting: visitors in the queue.
    kept_seconds: how long files of results stay on disk.

    Raises OptionError on a limit that is not positive.
    """

    upload_bytes: int = 20_000_000
    pixels: int = 16_000_000
    sound_seconds: float = 30.0
    seconds: float = 300.0
    candidates: int = 64
    waiting: int = 8
    kept_seconds: int = 3_600

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise OptionError(f"Limits({name}=...) must be positive, got {value!r}.")

    def check_size(self, path: Path) -> None:
        """Raise SignalError on a file that is missing, empty or larger than `upload_bytes`."""
        if not path.is_file():
            raise SignalError(f"there is no file '{path.name}' any more. Upload it again.")
        size = path.stat().st_size
        if not size:
            raise SignalError(f"'{path.name}' is empty: 0 bytes. Was it copied to its end?")
        if size > self.upload_bytes:
            raise SignalError(
                f"'{path.name}' has {size / 1e6:.1f} MB; this page takes up to "
                f"{self.upload_bytes / 1e6:g} MB. Larger ones: mlass separate FILE."
            )

    def check_image(self, path: Path) -> None:
        """Raise SignalError on an image of too many pixels, before any of them is decoded. What is
        no image at all is left to `read_image` to tell."""
        from PIL import Image

        self.check_size(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    width, height = image.size
        except Image.DecompressionBombError as error:
            raise SignalError(f"'{path.name}' is far too large for an image: {error}") from error
        except Exception:  # Pillow's plugins raise whatever they meet
            return
        if width * height > self.pixels:
            raise SignalError(
                f"'{path.name}' has {width:,} x {height:,} pixels; this page takes up to "
                f"{self.pixels:,} in all. Scale it down first: it is read at 28 x 28 anyway."
            )

    def read_sound(self, path: Path) -> tuple[Tensor, int]:
        """The samples float32 [channels, T] of a sound file, and their rate in Hz.

        Raises SignalError on files that are too large, too long, or no sound; of a long one no more
        is decoded than the page takes.
        """
        from ..audio import AudioStream

        self.check_size(path)
        stream, blocks, frames = AudioStream(path), [], 0
        for block in stream.blocks():
            blocks.append(block)
            frames += block.shape[-1]
            if frames > self.sound_seconds * stream.rate:
                raise SignalError(
                    f"'{path.name}' is longer than {self.sound_seconds:g} s, the most that this "
                    f"page takes. For all of it: mlass separate {path.name} --bundle band"
                )
        if not frames:
            raise SignalError(f"'{path.name}' holds no samples: a sound of zero length.")
        return torch.cat(blocks, -1), stream.rate
