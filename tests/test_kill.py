"""Work that is killed goes on to the same end; few kills of each kind here, more in
`python -m benchmarks.reliability kill`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of this process")


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("name", ["save", "count", "evaluate", "images", "songs", "train"])
def test_killed_work_goes_on_to_the_same_end(name: str, tmp_path: Path) -> None:
    from benchmarks.reliability import kill
    from benchmarks.reliability_jobs import jobs

    if name in ("songs", "train"):
        pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")
    row = kill(jobs()[name], 2, tmp_path)
    assert (row.lost, row.reason) == (0, "")
    assert row.injected == 2
    assert row.compared >= 1


def test_a_job_that_forgets_is_told(tmp_path: Path) -> None:
    """The comparison itself: work whose end depends on how often it was begun."""
    from benchmarks.reliability import Job, kill

    def work(folder: Path) -> None:
        import time

        with (folder / "begun").open("a") as file:
            file.write("x")
        time.sleep(0.05)

    job = Job("forgets", lambda folder: None, work, lambda folder: {"n": _size(folder / "begun")})
    row = kill(job, 2, tmp_path)
    assert row.lost >= 1
    assert row.reason == "another result"


def _size(file: Path) -> int:
    return file.stat().st_size


def test_damaged_files_are_noticed_and_named(tmp_path: Path) -> None:
    from benchmarks.reliability import damage, table

    rows = list(damage(6, tmp_path))
    assert [row.lost for row in rows] == [0] * 4, table(rows)
    assert "| files of a bundle: cut | 6 | 6 | 0 |" in table(rows)
