"""What a table says of itself: weights, commit, machine, memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlass_ppl.evaluate import _memory, provenance


@dataclass
class Bundle:
    path: Path | None
    card: dict[str, Any] = field(default_factory=dict)
    smoothing: Any = None


def test_a_bundle_that_was_trained_again_has_another_hash(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    (tmp_path / "codec.safetensors").write_bytes(b"weights")
    before = provenance.bundle_hash(Bundle(tmp_path))
    (tmp_path / "notes.txt").write_text("not part of it")
    assert provenance.bundle_hash(Bundle(tmp_path)) == before
    assert provenance.bundle_hash(Bundle(tmp_path, smoothing=1.0)) != before
    (tmp_path / "codec.safetensors").write_bytes(b"Weights")
    assert provenance.bundle_hash(Bundle(tmp_path)) != before


def test_a_bundle_in_memory_is_told_by_its_card() -> None:
    one, two = Bundle(None, {"steps": 1}), Bundle(None, {"steps": 2})
    assert provenance.bundle_hash(one) != provenance.bundle_hash(two)
    assert provenance.bundle_hash(one) == provenance.bundle_hash(Bundle(None, {"steps": 1}))


def _git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *names, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose package lies where the module believes to be."""
    package = tmp_path / "mlass_ppl"
    (package / "evaluate").mkdir(parents=True)
    (package / "_version.py").write_text("one\n")
    monkeypatch.setattr(provenance, "__file__", str(package / "evaluate" / "provenance.py"))
    try:
        _git(tmp_path, "init")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not run here: {error}")
    return tmp_path


def test_the_commit_is_that_of_the_projects_own_checkout(checkout: Path) -> None:
    def commit() -> Any:
        return provenance.provenance(torch.device("cpu"))["commit"]

    assert commit() is None  # installed into a checkout that does not track it
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-m", "one")
    head = _git(checkout, "rev-parse", "HEAD")
    assert commit() == head
    (checkout / "mlass_ppl" / "_version.py").write_text("two\n")
    assert commit() == f"{head}+changes"


def test_facts_of_the_machine() -> None:
    facts = provenance.provenance(torch.device("cpu"))
    assert facts["torch"] == torch.__version__
    assert facts["device"].startswith("cpu (")
    assert facts["threads"] == torch.get_num_threads()


def test_the_codecs_device() -> None:
    assert provenance.codec_device(torch.nn.Linear(2, 2, device="meta")).type == "meta"
    assert provenance.codec_device(object()).type == "cpu"


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module on Windows")
def test_the_peak_counts_what_was_held() -> None:
    _memory.reset_peak()
    before = _memory.peak_mb()
    block = np.ones(20_000_000)  # 160 MB
    held = _memory.peak_mb()
    del block
    assert before is not None
    assert held is not None
    assert held - before > 120
    assert (_memory.peak_mb() or 0) >= held


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux starts the peak afresh")
def test_the_peak_starts_afresh() -> None:
    block = np.ones(20_000_000)
    held = _memory.peak_mb()
    del block
    _memory.reset_peak()
    after = _memory.peak_mb()
    if after == held:
        pytest.skip("this system does not let a process reset its own peak")
    assert held is not None
    assert after is not None
    assert held - after > 120
