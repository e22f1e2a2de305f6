"""A run directory: the configuration and the records of one evaluation, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import DataError, OptionError
from .records import Record

Notice = Callable[[str], None]


def config_hash(config: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of a JSON-able configuration, key order ignored."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:12]


class RunDirectory:
    """`config.json` and `records.jsonl` of one evaluation, held open by one process.

    Opening a new directory writes the configuration; opening one that the same configuration made
    reads its records, so that an interrupted run goes on where it stopped. A last line that was cut
    off is dropped with a notice. Raises OptionError when another configuration made the directory,
    when it holds other files than a run's, or when another process is writing to it; DataError when
    a line inside the records is damaged.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], notice: Notice) -> None:
        self.path = Path(path)
        _claim(self.path, config)
        self._file = _locked(self.path / "records.jsonl")
        try:
            self._records = {record.key: record for record in _read(self._file, notice)}
        except BaseException:
            self._file.close()
            raise
        if self._records:
            notice(f"{self.path} holds {len(self._records):,} records of this run: resuming.")
        else:
            notice(f"Records go to {self.path}.")

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def records(self) -> tuple[Record, ...]:
        """All records so far, in the order of their making."""
        return tuple(self._records.values())

    def missing(self, sources: int, method: str, num: int) -> list[int]:
        """Mixtures 0..num-1 that have no record of this method yet, or failed."""
        found = (self._records.get((sources, method, i)) for i in range(num))
        return [i for i, record in enumerate(found) if record is None or record.failed]

    def append(self, records: Iterable[Record]) -> None:
        """Write records and wait until they are on the disk."""
        records = list(records)
        self._file.write("".join(record.to_json() + "\n" for record in records).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._records.update({record.key: record for record in records})


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, allow_nan=False)


def _claim(path: Path, config: Mapping[str, Any]) -> None:
    """Make the directory with its configuration, or check that it was made by the same one."""
    file = path / "config.json"
    if not file.exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OptionError(
                f"{path} exists and is no run directory (it has no config.json). Give an empty or "
                "a new one with --run-dir."
            )
        path.mkdir(parents=True, exist_ok=True)
        draft = path / "config.json.part"
        draft.write_text(json.dumps(config, indent=2) + "\n")
        draft.replace(file)
        return
    try:
        made = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(
            f"{file} is no JSON ({error}). Give a new directory with --run-dir."
        ) from error
    if _canonical(made) != _canonical(config):
        keys = sorted(set(made) | set(config)) if isinstance(made, dict) else []
        other = [
            f"{key} {made.get(key)!r} instead of {config.get(key)!r}"
            for key in keys
            if made.get(key) != config.get(key)
        ]
        raise OptionError(
            f"{path} holds a run with another configuration ({'; '.join(other)}). Give a new "
            "directory with --run-dir, or the options that made this one."
        )


def _locked(path: Path) -> IO[bytes]:
    file = path.open("a+b")
    try:
        import fcntl
    except ImportError:  # no such lock on Windows: two writers are then the user's concern
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OptionError(
            f"another process is writing to {path.parent}. Wait for it, or give another --run-dir."
        ) from error
    return file


def _read(file: IO[bytes], notice: Notice) -> list[Record]:
    """Read all whole lines and cut the file behind the last one."""
    file.seek(0)
    raw = file.read()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        lost = len(raw) - len(whole)
        notice(f"{file.name}: dropped a last line that was cut off ({lost} bytes).")
        file.truncate(len(whole))
    records = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            records.append(Record.from_json(line.decode()))
        except (DataError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file.name}, line {number}: {error} Delete that line (its mixture is then "
                "evaluated again) or start over in a new --run-dir."
            ) from error
    return records
