"""`--memory-limit` of the commands that separate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import mixtures, mlass, tiny_home  # noqa: F401  (fixtures)

from mlass_ppl.cli._bytes import bytes_from
from mlass_ppl.errors import OptionError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2GB", 2e9), ("1.5g", 1.5e9), ("500MB", 5e8), ("64kb", 6.4e4), (None, None)],
)
def test_sizes_are_read(text: str | None, wanted: float | None) -> None:
    assert bytes_from(text, "--memory-limit") == wanted


@pytest.mark.parametrize("text", ["two", "-1GB", "0", "GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=f"--memory-limit takes a size .*; not '{text}'"):
        bytes_from(text, "--memory-limit")


def test_a_limit_changes_no_picture(
    mlass: Any,  # noqa: F811
    mixtures: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlass_ppl import _separating

    sizes: list[int] = []
    run = _separating.loop.TokenLoop.run

    def watched(self: Any, observed: Any, random: list[Any], *rest: Any) -> Any:
        sizes.append(len(random))
        return run(self, observed, random, *rest)

    monkeypatch.setattr(_separating.loop.TokenLoop, "run", watched)
    options = ("separate", mixtures, "--candidates", 6, "--refine", "none")
    mlass(*options, "--out", "free")
    free, sizes[:] = list(sizes), []
    mlass(*options, "--out", "limited", "--memory-limit", "1.8MB")
    assert free == [4]
    assert sum(sizes) == 4
    assert len(sizes) > 1
    for i in range(4):
        pictures = [
            np.array(Image.open(f"{out}/mix{i}/source_1.png")) for out in ("free", "limited")
        ]
        assert (pictures[0] == pictures[1]).all()


def test_a_limit_that_is_too_small_is_a_sentence(
    mlass: Any,  # noqa: F811
    mixtures: Path,  # noqa: F811
) -> None:
    result = mlass("separate", mixtures, "--memory-limit", "1KB", code=2)
    assert "the limit is 1 kB (memory_limit=...)" in " ".join(result.output.split())
