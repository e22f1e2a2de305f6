"""Saving is all or nothing: killed at any step, on a full disk, or with another process at it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tiny import blobs, count_tables, make_codec, make_gpt2

from mlass_ppl import _bundle_stage as stage
from mlass_ppl._bundle_files import STAGE
from mlass_ppl._locks import alone
from mlass_ppl.bundle import Bundle, load
from mlass_ppl.errors import BundleError, OptionError
from mlass_ppl.refine.network import Refiner, RefinerConfig
from mlass_ppl.shapes import chain, joint

STEPS = ("replace", "fsync", "unlink", "mkdir", "rmdir")


@pytest.fixture(scope="module")
def old() -> Bundle:
    made = Bundle("tiny", make_codec(), {"blob": make_gpt2()}, card={"which": "old"})
    return count_tables(made, sources=(2,), mixtures=100)


@pytest.fixture(scope="module")
def new() -> Bundle:
    """Other weights under the same names, one table less, others of the same name, a refiner."""
    made = Bundle("tiny", make_codec(seed=3), {"blob": make_gpt2(seed=3)}, card={"which": "new"})
    made = replace(made, refiner=Refiner(RefinerConfig(width=4)))
    return made.count(joint(2), blobs(50, 3), mixtures=100)


@pytest.fixture(scope="module")
def there(old, tmp_path_factory) -> Path:
    """The old bundle, to be copied."""
    return old.save(tmp_path_factory.mktemp("there") / "old")


@pytest.fixture(scope="module")
def made(there, new, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """What the files of each are when nothing happens."""
    return {"old": files(there), "new": files(new.save(tmp_path_factory.mktemp("made") / "new"))}


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def killed_at(step: int, save: Callable[[], object]) -> bool:
    """Whether a process that saves was killed before its `step`-th change of the disk."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "saving failed"
        return os.WIFSIGNALED(status)
    left = [step]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments, **options)

        return made

    code = 1
    try:
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        save()
        code = 0
    finally:
        os._exit(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_save_that_is_killed_at_any_step_leaves_the_old_bundle_or_the_new(
    old, new, there, made, tmp_path
):
    seen, step = [], 0
    while True:
        folder = shutil.copytree(there, tmp_path / str(step))
        died = killed_at(step, lambda path=folder: new.save(path))
        found = load(folder)
        which = found.card["which"]
        assert found.counts == (new if which == "new" else old).counts, step
        assert (found.refiner is None) == (which == "old"), step
        seen.append(which)
        # loading put what was on the stage to its places
        left = files(folder)
        assert {name: left[name] for name in made[which]} == made[which], step
        if step % 7 == 0:  # and the step can be repeated, as if nothing had happened
            new.save(folder)
            left = files(folder)
            assert {name: left[name] for name in made["new"]} == made["new"], step
        assert not (folder / STAGE).exists(), step
        if not died:
            break
        step += 1
    assert step > 20
    turn = seen.index("new")
    assert seen == ["old"] * turn + ["new"] * (len(seen) - turn)
    assert turn > 5
    assert len(seen) - turn > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_bundle_whose_stage_cannot_be_moved_is_read_from_there(new, there, tmp_path, monkeypatch):
    for step in count(10):
        folder = shutil.copytree(there, tmp_path / str(step))
        assert killed_at(step, lambda path=folder: new.save(path))
        if b'"new"' in (folder / "bundle.json").read_bytes():
            break
    monkeypatch.setattr(stage, "_settle", lambda *_: None)  # as where the folder is read only
    assert load(folder).counts == new.counts
    assert (folder / STAGE / "codec.safetensors").is_file()


def test_files_that_the_new_bundle_lacks_are_removed_and_others_stay(there, new, made, tmp_path):
    folder = shutil.copytree(there, tmp_path / "b")
    (folder / "notes.txt").write_text("mine")
    new.save(folder)
    assert files(folder) == {**made["new"], "notes.txt": b"mine"}
    assert not set(made["old"]) <= set(made["new"])


def test_files_that_stay_the_same_are_not_written_again(there, tmp_path):
    folder = shutil.copytree(there, tmp_path / "b")
    before = {file.name: file.stat().st_ino for file in folder.glob("*.safetensors")}
    load(folder).count(chain(3), blobs(50), mixtures=50).save(folder)
    after = {file.name: file.stat().st_ino for file in folder.glob("*.safetensors")}
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


# --- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "room"),
    [("mkdir", 0), ("fsync", 0), ("fsync", 3), ("replace", 0), ("replace", 1), ("replace", 3)],
)
def test_a_full_disk_is_told_and_leaves_the_bundle(
    there, old, new, made, tmp_path, monkeypatch, name, room
):
    folder = shutil.copytree(there, tmp_path / "b")
    left, call = [room], getattr(os, name)

    def full(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return call(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(BundleError, match=r"cannot write .*No space left.*Free some space"):
            new.save(folder)
    assert files(folder) == made["old"]
    assert load(folder).counts == old.counts
    new.save(folder)
    assert files(folder) == made["new"]


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="mounts a small disk",
)
def test_a_disk_that_is_really_full(old, new, made, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(map(len, made["old"].values())) + 40_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        folder = old.save(disk / "b")
        with pytest.raises(BundleError, match="No space left"):
            new.save(folder)
        assert files(folder) == made["old"]
        assert load(folder).counts == old.counts
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- several at once -----------------------------------------------------------------------------


def test_a_second_process_waits_and_is_refused_at_last(
    there, old, new, made, tmp_path, monkeypatch
):
    pytest.importorskip("fcntl")
    folder = shutil.copytree(there, tmp_path / "b")
    monkeypatch.setattr(stage, "_WAIT", 0.1)
    with stage._held(folder, 0.0):
        with pytest.raises(BundleError, match="another process is saving to"):
            new.save(folder)
        assert load(folder).counts == old.counts  # reading is free
    new.save(folder)
    assert files(folder) == made["new"]


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with alone(tmp_path / "run"):
        with (
            pytest.raises(OptionError, match=r"another process is working in .*run\. Wait"),
            alone(tmp_path / "run"),
        ):
            pytest.fail("two at once")
        with alone(tmp_path / "other"):
            pass
    with alone(tmp_path / "run"):
        pass


def test_what_came_since_a_bundle_was_loaded_is_not_lost(there, tmp_path):
    folder = shutil.copytree(there, tmp_path / "b")
    one, other = load(folder), load(folder)
    one.count(chain(3), blobs(50), mixtures=50).save(folder)
    before = files(folder)
    with pytest.raises(BundleError, match=r"has table-.* since bundle 'tiny' was loaded.*again"):
        other.count(joint(3), blobs(50), mixtures=50).save(folder)
    assert files(folder) == before
    one.count(chain(3), blobs(50), mixtures=50).save(folder)  # the same again is no loss
    both = load(folder).count(joint(3), blobs(50), mixtures=50)
    assert len(load(both.save(folder)).counts) > len(one.counts) + 1
    replace(load(folder), counts={}).save(folder)  # what was known may be dropped
    assert not list(folder.glob("table-*"))


def test_a_bundle_that_is_saved_while_it_is_read_is_read_again(there, new, tmp_path, monkeypatch):
    from mlass_ppl import bundle as module

    folder, read = shutil.copytree(there, tmp_path / "b"), module.read_parts

    def slow(path: Path, card: dict[str, Any]) -> dict[str, Any]:
        if card["which"] == "old":
            new.save(path)
        return read(path, card)

    monkeypatch.setattr(module, "read_parts", slow)
    assert load(folder).card["which"] == "new"
