"""The benchmark's whole separations, curves and limits, on a toy bundle and small alphabets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import mlass_ppl as mlass

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def sources(number: int, n: int) -> torch.Tensor:
    return tiny.blobs(number * n, 3).unflatten(0, (number, n))


@pytest.mark.parametrize("n", [2, 3])
def test_naive_separation_takes_mixtures_apart(n: int) -> None:
    """As well as the library does with the same algorithm, and far better than the mixture."""
    from benchmarks.naive_separation import NaiveSeparation
    from benchmarks.whole import _ours, _psnr

    bundle, known = tiny.make_bundle(), sources(12, n)
    mixtures = known.mean(1)
    found = NaiveSeparation(bundle, n, 16)(mixtures)
    assert found.shape == known.shape
    same = _ours(bundle, mlass.chain(n), mlass.BP(), mlass.Sample(16), mlass.Nearest())(mixtures)
    assert _psnr(found, known) == pytest.approx(_psnr(same, known), abs=1.5)
    again = NaiveSeparation(bundle, n, 16)(mixtures)
    assert torch.equal(found, again)


def test_naive_separation_steps_a_language_model_as_the_prior_does() -> None:
    from benchmarks.naive_separation import _Memory, _Steps

    prior = tiny.make_gpt2()
    one, other = _Memory(prior), _Steps(prior)
    fed = None
    for _ in range(4):
        with torch.no_grad():
            found, wanted = one(fed, 10), other(fed, 10)
        assert torch.allclose(found, wanted, atol=1e-5)
        fed = torch.multinomial(wanted, 1)[:, 0]


def test_naive_separation_goes_on_where_a_token_was_never_seen() -> None:
    from benchmarks.naive_separation import NaiveSeparation

    bundle, mixtures = tiny.make_bundle(), sources(4, 2).mean(1)
    token = int(bundle.codec.encode(mixtures)[0, 0])
    found = NaiveSeparation(tiny.without(bundle, token), 2, 4)(mixtures)
    assert torch.isfinite(found).all()


def test_separations_are_compared_at_equal_psnr(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import whole
    from benchmarks.measure import Plan

    monkeypatch.setattr(whole, "CANDIDATES", 4)
    # the toy bundle has no tables of features and one codec, so its chain stands for both
    for name in ("defaults", "tokens"):
        monkeypatch.setattr(
            whole,
            name,
            lambda bundle, n, count: whole._ours(
                bundle, mlass.chain(n), mlass.BP(), mlass.SMC(count), mlass.Mean()
            ),
        )
    sizes = whole.Sizes(mixtures=3, plan=Plan(0.0, 1, 1), most=8)
    rows = {
        row["what"]: row for row in whole.separations(tiny.make_bundle(), 2, sizes, sources(3, 2))
    }
    assert {"naive", "same algorithm", "defaults"} < rows.keys()
    naive = rows.pop("naive")
    assert naive["speedup"] == 1.0
    equal = [row for what, row in rows.items() if what.startswith("equal PSNR")]
    assert len(equal) == 2
    assert all("left_out" in row or row["psnr_db"] >= naive["psnr_db"] for row in equal)
    assert all(row["mixtures_per_second"] > 0 for row in rows.values() if "left_out" not in row)


def test_shares_add_up_and_change_no_answer() -> None:
    from benchmarks.shares import shares

    bundle, mixtures = tiny.make_bundle(), sources(3, 2).mean(1)
    given: Any = (mixtures, mlass.chain(2), bundle, mlass.BP(), mlass.Sample(4))
    found = shares(*given)
    assert set(found) == {"prior", "engine", "other"}
    assert all(value > 0 for value in found.values())

    from dataclasses import replace

    from benchmarks.shares import Clock, Timed, TimedEngine

    clock = Clock()
    priors = {key: Timed(p, clock, "prior", "step", "reorder") for key, p in bundle.priors.items()}
    timed: Any = replace(bundle, priors=priors)
    search: Any = Timed(mlass.Sample(4), clock, "engine", "step")
    infer = TimedEngine(mlass.BP(), clock)
    one = mlass.separate(mixtures, mlass.chain(2), timed, infer=infer, search=search)
    tiny.same(
        one,
        mlass.separate(mixtures, mlass.chain(2), bundle, infer=mlass.BP(), search=mlass.Sample(4)),
    )


def test_curves_are_fitted_and_drawn(tmp_path: Path) -> None:
    from benchmarks import scaling
    from benchmarks.measure import Plan
    from benchmarks.problem import Case

    scaling._BASE, kept = Case(2, 8, 4), scaling._BASE
    try:
        wanted = [
            scaling.Curve("n", (2, 3, 4), "n"),
            scaling.Curve("k", (4, 8), "K", 2.0),
            scaling.Curve("children", (1, 2), "cells"),
            scaling.Curve("mixtures", (1, 2), "M"),
        ]
        rows = list(scaling.scaling(wanted, Plan(0.0, 1, 1), tmp_path))
    finally:
        scaling._BASE = kept
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert [row["varies"] for row in rows if row["part"] == "fit"] == [c.name for c in wanted]
    cells = [row["cells"] for row in rows if row["varies"] == "children" and "cells" in row]
    assert cells[0] < cells[1]


def test_a_line_is_fitted_by_least_squares() -> None:
    from benchmarks.scaling import Curve, _line

    rows = [{"value": v, "ms": 3.0 * v**2 + 1.0} for v in (1, 2, 3, 5)]
    fit = _line("ms", rows, Curve("k", (), "K", 2.0))
    assert fit["ms_slope"] == pytest.approx(3.0)
    assert fit["ms_at_0"] == pytest.approx(1.0)
    assert fit["ms_r2"] == pytest.approx(1.0)
    assert _line("ms", rows, Curve("k", (), "K", 1.0))["ms_r2"] < 0.99
    assert _line("ms", [{"value": 1, "ms": None}], Curve("k", (), "K")) == {}


def test_limit_is_of_measured_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import limit
    from benchmarks.measure import Plan
    from benchmarks.problem import Case
    from benchmarks.synthetic import made

    monkeypatch.setattr(limit, "_SIDE", 64)
    monkeypatch.setattr(limit, "_COPIED", 1 << 12)
    row = limit.limits(made(Case(3, 8, 4)), Plan(0.0, 1, 1))
    assert row["operations"] == 2.0 * 4 * (row["cells"] + 64)
    assert row["bytes"] == 8.0 * row["cells"] + 3 * 4 * 8 * 4
    assert row["share_of_gemm"] == pytest.approx(
        row["operations"] / (row["gemm_gflops"] * 1e9) / (row["ms"] / 1e3)
    )


def test_a_machine_without_a_gpu_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.__main__ import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "made" / "bench.json"
    main(["--quick", "--only", "gpu", "--json", str(file), "--markdown", str(tmp_path / "b.md")])
    content = json.loads(file.read_text("utf-8"))
    assert content["ratios"] == {}
    assert content["rows"] == [{"part": "skipped", "what": "gpu", "reason": "no CUDA device here"}]
    assert {"torch", "device", "threads", "seconds", "libraries"} <= content["run"].keys()
    assert "no CUDA device here" in (tmp_path / "b.md").read_text("utf-8")
    assert "no CUDA device here" in capsys.readouterr().out


def test_real_tables_are_repeated_along_a_longer_chain() -> None:
    from benchmarks.real import chain_tables

    bundle = tiny.make_bundle()
    graph = mlass.compile_program(mlass.chain(5))
    tables = chain_tables(bundle, graph)
    assert list(tables) == [factor.name for factor in graph.factors]
    three = mlass.compile_program(mlass.chain(3))
    own = bundle.tables(three, three.factors)
    assert torch.equal(tables["mix_2"].keys, own["mix_2"].keys)
    for name in ("mix_3", "mix_4", "mixture"):
        assert torch.equal(tables[name].keys, own["mixture"].keys)
