"""Options of `mlass separate` that are for sound alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError

if TYPE_CHECKING:
    from ..songs import StemFiles

POSTFILTERS = ("wiener", "none")

TwoStems = Annotated[
    str | None,
    typer.Option(help="Sound: write this stem and no_{stem}, the mixture without it, alone."),
]
Residual = Annotated[
    bool,
    typer.Option("--residual", help="Sound: also write residual, the mixture less its stems."),
]
Postfilter = Annotated[
    str | None,
    typer.Option(
        help="Sound: wiener (default) makes the stems parts of the mixture, which they then sum "
        "to; none leaves them as they are decoded."
    ),
]
Float32 = Annotated[
    bool | None,
    typer.Option("--float32/--int16", help="Sound: how WAV stems are written (default: float32)."),
]
Clip = Annotated[
    str | None,
    typer.Option(
        help="Sound: rescale (default) turns all stems down alike where one is beyond full scale, "
        "clamp cuts it off; float32 keeps it."
    ),
]
Suffix = Annotated[str | None, typer.Option(help="Sound: .wav (default), .flac, .ogg or .mp3.")]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Sound: chunks separated at once (default: 4); it changes no result."),
]


@dataclass(frozen=True)
class SongOptions:
    """These options as they were given, None or false where they were not."""

    two_stems: str | None = None
    residual: bool = False
    postfilter: str | None = None
    float32: bool | None = None
    clip: str | None = None
    suffix: str | None = None
    batch_size: int | None = None

    def check_unused(self, bundle: str) -> None:
        """Raise OptionError where one was given and the bundle is of images."""
        for name, value in vars(self).items():
            if value not in (None, False) or (name == "float32" and value is not None):
                option = "--float32/--int16" if name == "float32" else f"--{name.replace('_', '-')}"
                raise OptionError(
                    f"{option} is for sound, and bundle '{bundle}' is of images. Leave it out, or "
                    "name a bundle of sound with --bundle."
                )

    def filter(self) -> Any:
        """The post-filter. Raises OptionError on an unknown name."""
        from ..audio import Wiener

        name = self.postfilter or POSTFILTERS[0]
        if name not in POSTFILTERS:
            raise OptionError(
                f"unknown --postfilter '{name}': expected one of {', '.join(POSTFILTERS)}."
            )
        return Wiener() if name == "wiener" else None

    def files(self, folder: Path, force: bool) -> StemFiles:
        """Where the stems of one song go. Raises OptionError on unknown values."""
        from ..songs import StemFiles

        suffix = self.suffix or ".wav"
        given: dict[str, Any] = {"suffix": suffix if suffix.startswith(".") else f".{suffix}"}
        if self.float32 is not None:
            given["encoding"] = "float32" if self.float32 else "int16"
        if self.clip is not None:
            given["clip"] = self.clip
        return StemFiles(folder, **given, force=force)
