"""`mlass separate` of images: image files in, a folder of separated sources for each out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MlassError, SignalError, UnseenToken
from ._common import console, progress_bar, say
from ._job import Images, Job

if TYPE_CHECKING:
    from ._tracks import Track

_AT_ONCE = 16  # files separated together; each group is on disk before the next begins


@dataclass
class ImageRun:
    job: Job
    out: Path
    force: bool
    keep: int
    failed: list[str] = field(default_factory=list)
    written: list[tuple[Track, dict[str, Any]]] = field(default_factory=list)

    def go(self, paths: list[Path], mixtures: list[str]) -> list[str]:
        """Separate all of them. Returns what could not be."""
        from ._tracks import sets_of, tracks_for

        sets = sets_of(mixtures, self.job.graph, len(paths))
        waiting = []
        for track in tracks_for(sets or self._files(paths), self.out):
            if track.done and not self.force:
                say(f"kept {track.folder} (--force separates it again)")
            else:
                waiting.append(track)
        read = [(track, images) for track in waiting if (images := self._read(track))]
        groups = [read[i : i + _AT_ONCE] for i in range(0, len(read), _AT_ONCE)]
        if groups:
            with progress_bar(len(groups)) as piece:
                for group in groups:
                    names = f"{group[0][0].folder.name} ({len(group)} files)"
                    self._separate(group, piece(names if len(group) > 1 else names.split(" (")[0]))
        self._summary()
        return self.failed

    def _files(self, paths: list[Path]) -> list[Path]:
        from ..data.images import image_files
        from ._tracks import FACTS

        files: dict[Path, Path] = {}
        for path in paths:
            try:
                for file in image_files([path]):
                    # what an earlier run wrote into a folder that is given is no mixture
                    if file == path or not (file.parent / FACTS).is_file():
                        files.setdefault(file.resolve(), file)
            except SignalError as error:
                self._fail(path, error)
        return list(files.values())

    def _read(self, track: Track) -> Images | None:
        """The images of a mixture by observed site, or None where one cannot be read."""
        from ..data.images import read_image

        size = self.job.bundle.codec.signal_shape[-2:]
        images = {}
        for site, file in track.files.items():
            try:
                images[site] = read_image(file, tuple(size))
            except SignalError as error:
                self._fail(file, error)
                return None
            for notice in images[site].notices:
                say(f"{file}: {notice}", style="yellow")
        return images

    def _separate(self, group: list[tuple[Track, Images]], progress: Any) -> None:
        try:
            found = self.job([images for _, images in group], progress)
        except (UnseenToken, SignalError) as error:
            if len(group) == 1:
                self._fail(group[0][0], error)
            else:  # one of them cannot be separated: find out which
                for one in group:
                    self._separate([one], progress)
            return
        from ._tracks import write_track

        for row, (track, images) in enumerate(group):
            facts = {**self.job.facts, **_evidence(found, row)}
            several = len(images) > 1
            notices = [
                f"{site}: {notice}" if several else notice
                for site, image in images.items()
                for notice in image.notices
            ]
            facts = write_track(track, found, row, facts, notices=notices, keep=self.keep)
            self.written.append((track, facts))

    def _fail(self, what: Path | Track, error: MlassError) -> None:
        self.failed.append(str(what))
        say(f"{type(error).__name__}: {error}", style="red", stderr=True)

    def _summary(self) -> None:
        if self.written:
            from rich.markup import escape
            from rich.table import Table

            title = f"{self.job.graph.name}, {self.job.facts['engine']}"
            table = Table(title=escape(title))
            table.add_column("written", overflow="fold")
            table.add_column("mixture PSNR", justify="right")
            table.add_column("log evidence", justify="right")
            table.add_column("tokens ruled out", justify="right")
            for track, facts in self.written:
                psnr = _decibel(facts["mixture_error"])
                nats = f"{facts['evidence_nats']:.1f} nats"
                table.add_row(escape(str(track.folder)), psnr, nats, str(facts["ruled_out"]))
            console().print(table)
        if self.failed:
            say(f"{len(self.failed)} not separated: {', '.join(self.failed)}", style="red",
                stderr=True)  # fmt: skip


def _evidence(found: Any, row: int) -> dict[str, Any]:
    """Log evidence of the chosen candidate over the tokens that its tables allow, and how many
    they rule out."""
    nats = found.evidence[row, int(found.chosen[row])]
    allowed = nats.isfinite()
    return {"evidence_nats": float(nats[allowed].sum()), "ruled_out": int((~allowed).sum())}


def _decibel(error: float) -> str:
    from math import log10

    return f"{-10 * log10(max(error, 1e-10)):.1f} dB"
