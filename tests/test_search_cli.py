"""Searches and several separations on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import mixtures, mlass, tiny_home  # noqa: F401  (fixtures)

from mlass_ppl import SMC, Beam, Greedy, Sample
from mlass_ppl.cli._kept import clear
from mlass_ppl.cli._search import search_from
from mlass_ppl.errors import OptionError


def test_searches_by_name_and_options():
    assert search_from("sample", 8, "1", None, None) == Sample(8)
    assert search_from("smc", 8, "1.2:0.8", 5, None) == SMC(8, temperature=(1.2, 0.8), top_k=5)
    assert search_from("beam", 8, "0.5", None, 0.9) == Beam(8, temperature=0.5, top_p=0.9)
    assert search_from("greedy", 64, "1", 3, None) == Greedy(top_k=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("best", 8, "1", None, None), "unknown search 'best': expected one of sample, smc, beam"),
        (("beam", 0, "1", None, None), "--candidates must be a whole number, at least 1, got 0"),
        (("sample", 8, "warm", None, None), "FIRST:LAST such as 1.2:0.8; got 'warm'"),
        (("sample", 8, "1:2:3", None, None), "temperature must be positive, or a pair"),
        (("sample", 8, "0", None, None), "temperature must be positive"),
        (("sample", 8, "1", None, 2.0), "top_p"),
    ],
)
def test_bad_searches_teach(options, message):
    with pytest.raises(OptionError, match=message):
        search_from(*options)


@pytest.mark.parametrize("search", ["smc", "beam", "greedy"])
def test_every_search_separates(mlass, mixtures, search):  # noqa: F811
    mlass("separate", mixtures / "mix0.png", "--search", search, "--candidates", 3, "--out", "out",
          "--temperature", "1:0.5", "--top-k", 9, "--top-p", 0.99, "--refine", "none")  # fmt: skip
    facts = json.loads(Path("out/mix0/facts.json").read_text())
    assert facts["search"].lower().startswith(search)
    assert "temperature=(1.0, 0.5), top_k=9, top_p=0.99" in facts["search"]
    assert facts["candidates"] == (1 if search == "greedy" else 3)


def test_several_separations_are_written_in_numbered_folders(mlass, mixtures):  # noqa: F811
    options = ("separate", mixtures, "--candidates", 6, "--out", "out", "--refine", "none",
               "--estimate", "nearest")  # fmt: skip
    mlass(*options, "--keep", 3)
    for i in range(4):
        folder = Path("out") / f"mix{i}"
        facts = json.loads((folder / "facts.json").read_text())
        assert [kept["files"] for kept in facts["kept"]] == [
            [f"{number}/source_1.png", f"{number}/source_2.png"] for number in (1, 2, 3)
        ]
        errors = [kept["mixture_error"] for kept in facts["kept"]]
        assert errors == sorted(errors)
        assert errors[0] == pytest.approx(facts["mixture_error"], rel=1e-4)
        assert all(kept["log_prior"] < 0 for kept in facts["kept"])
        pictures = [torch.from_numpy(np.array(Image.open(folder / f"{n}/source_1.png")))
                    for n in (1, 2, 3)]  # fmt: skip
        own = torch.from_numpy(np.array(Image.open(folder / "source_1.png")))
        assert torch.equal(pictures[0], own)
    (folder / "2" / "mine.txt").write_text("mine")
    mlass(*options, "--keep", 1, "--force")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1", "2"]
    assert [path.name for path in (folder / "2").iterdir()] == ["mine.txt"]
    mlass(*options, "--force")
    assert "kept" not in json.loads((folder / "facts.json").read_text())
    assert not (folder / "1").exists()
    result = mlass(*options, "--keep", 7, code=2)
    assert "--keep takes 1 to 6" in result.output


def test_nothing_outside_a_folder_is_removed(tmp_path):
    folder = tmp_path / "a" / "b"
    (folder / "sub").mkdir(parents=True)
    kept = [tmp_path / "a" / "x.png", folder / "sub" / "x.png", tmp_path / "y.png"]
    for path in kept:
        path.write_text("")
    clear(folder, ["../x.png", "sub/x.png", str(tmp_path / "y.png"), "1/none.png", "1/../../x.png"])
    assert all(path.exists() for path in kept)
