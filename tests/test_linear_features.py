"""Linear features from the declaration to the answer: graphs, recipes, counting, bundles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ALPHABET, SIZE, TOKENS, blobs, make_codec, make_gpt2
from torch import Tensor
from typer.testing import CliRunner

from mlass_ppl import separate
from mlass_ppl.bundle import Bundle, load
from mlass_ppl.cli import app
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import BundleError, DataError, GraphError, TableError
from mlass_ppl.evidence import Feature, Token
from mlass_ppl.graph import MixingGraph
from mlass_ppl.infer import BP, Auto, Exact, Extractor, LoopyBP
from mlass_ppl.search import Sample
from mlass_ppl.shapes import balanced, chain, joint, star
from mlass_ppl.tables import (
    CellMoments,
    Counts,
    GaussianTable,
    LinearGaussianTable,
    Recipe,
    Shrink,
    count,
)
from mlass_ppl.train import digits

LINEAR = Feature(linear=True)
POOL = 60


@pytest.fixture(scope="module")
def empty() -> Bundle:
    return Bundle("tiny", make_codec(), {"blob": make_gpt2()}, shrink=Shrink(2.0, 0.05))


@pytest.fixture(scope="module")
def full(empty) -> Bundle:
    return empty.count(chain(3, evidence=LINEAR), blobs(POOL), mixtures=80)


def cells_of(codec: Any, tokens_of: Tensor, features_of: Tensor) -> CellMoments:
    tokens, features = codec.encode(tokens_of), codec.features(features_of)
    return CellMoments.from_features(tokens, features, codec.alphabet)


# --- declared ------------------------------------------------------------------------------------


def test_factors_know_that_they_are_linear():
    graph = compile_program(chain(3, evidence=LINEAR))
    assert (graph.features, graph.linear) == (("mixture",), ("mixture",))
    assert [(f.feature, f.linear) for f in graph.factors] == [(False, False), (True, True)]
    plain = graph.with_evidence({"mixture": Feature()})
    assert (plain.features, plain.linear) == (("mixture",), ())
    assert all(factor.linear for factor in Extractor().factors(graph))
    assert "observed as a linear feature (power 0.5)" in compile_program(
        joint(2, evidence=Feature(0.5, linear=True))
    ).describe(4)
    with pytest.raises(GraphError, match=r"linear=.* must be True or False, got 'yes'"):
        Feature(linear="yes")  # type: ignore[arg-type]


def test_parts_with_a_common_source_are_refused():
    def diamond(evidence=LINEAR):
        a, b, c = source("a"), source("b"), source("c")
        return mix("all", mix("ab", a, b), mix("bc", b, c), evidence=evidence)

    def hidden():
        a, b = source("a"), source("b")
        return mix("m", mix("ab", a, b), hidden=[b], evidence=LINEAR)

    with pytest.raises(GraphError, match=r"'ab' and 'bc' both hold source 'b'.*mix\('all', a, b"):
        compile_program(diamond)
    with pytest.raises(GraphError, match="'ab' and 'b' both hold source 'b'"):
        compile_program(hidden)
    counted = compile_program(lambda: diamond(Feature()))
    with pytest.raises(GraphError, match="both hold source 'b'"):
        counted.with_evidence({"all": LINEAR})


# --- recipes -------------------------------------------------------------------------------------


def recipes(graph: MixingGraph, bundle: Bundle) -> list[str]:
    return [str(r) for factor in graph.factors for r in bundle.recipes(graph, factor)]


def test_one_recipe_of_a_source_serves_every_program(empty):
    digit = "cells p(x(1 blob#1) | 1 blob#1)"
    for program in (joint(2), joint(5), star(3)):
        graph = compile_program(program)
        graph = graph.with_evidence(dict.fromkeys(graph.observed, LINEAR))
        assert set(recipes(graph, empty)) == {digit}
    graph = compile_program(chain(3, evidence=LINEAR))
    assert recipes(graph, empty)[1:] == [
        "cells p(x(0.5 blob#1 + 0.5 blob#2) | 0.5 blob#1 + 0.5 blob#2)",
        digit,
    ]
    pairs = compile_program(balanced(4, evidence=LINEAR))
    last = pairs.factors[-1]
    assert len(set(empty.recipes(pairs, last))) == 1


def test_recipes_of_cells_are_named_and_written_apart():
    cells = Recipe(("blob",), ((1.0,),), (1.0,), feature=True, cells=True)
    plain = replace(cells, cells=False)
    assert cells.slug != plain.slug
    assert plain.slug == "1of1-2571936d"
    for recipe in (cells, plain, replace(cells, codecs=("", "fine"))):
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert "cells" not in plain.to_json()


def test_parts_of_swapped_weights_share_their_cells(empty):
    def swapped():
        a, b, c = source("a"), source("b"), source("c")
        first = mix("first", a, b, weights=(0.7, 0.3))
        second = mix("second", c, source("d"), weights=(0.3, 0.7))
        return mix("m", first, second, evidence=LINEAR)

    graph = compile_program(swapped)
    assert len(set(empty.recipes(graph, graph.factors[-1]))) == 1


# --- counted -------------------------------------------------------------------------------------


def test_sources_are_counted_over_each_signal_once(empty):
    graph, calls = compile_program(joint(3, evidence=LINEAR)), []
    bundle = empty.count(graph, blobs(POOL), progress=lambda *done: calls.append(done))
    (found,) = bundle.counts.values()
    assert found == cells_of(empty.codec, blobs(POOL), blobs(POOL))
    assert calls == [(POOL, POOL)]
    kind: dict[str, Any] = {"kind": lambda name: "blob", "seed": 3, "mixtures": 7}
    for size in (1, 7, 1000):
        assert count(graph, empty.codec, blobs(POOL), batch_size=size, **kind) == bundle.counts
    assert bundle.count(joint(2, evidence=LINEAR), blobs(9)) is bundle
    more = count(graph, empty.codec, blobs(9, seed=8), start=bundle.counts, **kind)
    other = cells_of(empty.codec, blobs(9, seed=8), blobs(9, seed=8))
    assert list(more.values()) == [found + other]
    assert bundle.card["tables"][0]["signals"] == POOL
    with pytest.raises(DataError, match="'blob'"):
        empty.count(graph, {"other": blobs(9)})


def test_partial_mixtures_are_counted_as_they_are_mixed(empty, full):
    assert sorted(found.keys.numel() > 0 for found in full.counts.values()) == [True] * 3
    graph = compile_program(chain(3, evidence=LINEAR))
    pair, _ = full.recipes(graph, graph.factors[1])
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(POOL, (80,), generator=random) for _ in graph.sources]
    signals = (blobs(POOL)[rows[0]] * 0.5) + (blobs(POOL)[rows[1]] * 0.5)
    found = full.counts[pair]
    assert found == cells_of(empty.codec, signals, signals)
    assert {entry.get("mixtures") for entry in full.card["tables"]} == {80, None}


def test_the_codec_of_a_feature_reads_every_part(empty):
    """Tokens of the part's own codec, features of the observed site's."""

    def program():
        return mix("m", source("a"), source("b"), codec="fine", evidence=LINEAR)

    bundle = replace(empty, codecs={"fine": make_codec(alphabet=9, seed=4)})
    bundle = bundle.count(program, blobs(POOL))
    ((recipe, found),) = bundle.counts.items()
    assert recipe.codecs == ("", "fine")
    assert found.shape == (ALPHABET,)
    graph = compile_program(program)
    assert bundle.tables(graph, graph.factors)["m"].parents == (ALPHABET, ALPHABET)


def test_counts_to_go_on_from_are_checked(empty):
    graph = compile_program(joint(2, evidence=LINEAR))
    (recipe,) = set(empty.recipes(graph, graph.factors[0]))
    kind = recipe.leaves[0]
    for wrong in (Counts.empty((ALPHABET, ALPHABET)), CellMoments.empty(3, 16)):
        with pytest.raises(TableError, match=rf"CellMoments \({ALPHABET},\) of 'source_1' from"):
            count(graph, empty.codec, blobs(9), kind=lambda _: kind, start={recipe: wrong})


# --- tables --------------------------------------------------------------------------------------


def test_tables_take_the_weights_of_their_own_site(full):
    graph = compile_program(chain(3, evidence=LINEAR))
    table = full.tables(graph, graph.factors)["mixture"]
    pair, single = (full.counts[recipe] for recipe in full.recipes(graph, graph.factors[1]))
    assert isinstance(table, LinearGaussianTable)
    wanted = LinearGaussianTable.from_cells([pair, single], [2 / 3, 1 / 3], full.shrink)
    torch.testing.assert_close(table.means, wanted.means)
    torch.testing.assert_close(table.covariances, wanted.covariances)
    assert table.noise == pytest.approx(0.05**2)


def test_what_an_extractor_does_not_ask_for_is_averaged_over(full):
    graph = compile_program(chain(3, evidence=LINEAR))
    factors = Extractor().factors(graph)
    assert not full.lacking(graph, factors)
    single = full.counts[full.recipes(graph, factors[0])[0]]
    starred = compile_program(star(3))
    starred = starred.with_evidence(dict.fromkeys(starred.observed, LINEAR))
    wanted = LinearGaussianTable.from_cells(
        [single], [1 / 3], full.shrink, hidden=[(single, 1 / 3)] * 2
    )
    x = full.codec.features(blobs(1))[0].double()
    for tables in (full.tables(graph, factors), full.tables(starred, starred.factors)):
        assert len(tables) == 3
        for table in tables.values():
            torch.testing.assert_close(table.log_likelihood(x), wanted.log_likelihood(x))


def test_symmetry_is_checked_and_changes_nothing(full):
    def evenly():
        return mix("m", source("a"), source("b"), symmetric=True, evidence=LINEAR)

    graph = compile_program(evenly)
    table = full.tables(graph, graph.factors)["m"]
    assert torch.equal(table.means[0], table.means[1])
    two = replace(full, priors={"a": make_gpt2(), "b": make_gpt2()})
    with pytest.raises(GraphError, match="not exchangeable"):
        two.tables(graph, graph.factors)


def test_missing_cells_are_named(empty, full):
    graph = compile_program(joint(2, evidence=LINEAR))
    assert len(empty.lacking(graph, graph.factors)) == 1
    with pytest.raises(TableError, match=r"no table for 'mixture'.*cells p\(x\((?s:.)*mlass count"):
        empty.tables(graph, graph.factors)
    (recipe,) = set(full.recipes(graph, graph.factors[0]))
    small = replace(full, counts={recipe: make_cells(3)})
    with pytest.raises(TableError, match=rf"\(3,\), but .* needs \({ALPHABET},\)"):
        small.tables(graph, graph.factors)
    assert list(small.lacking(graph, graph.factors)) == [recipe]
    nothing = replace(full, counts={recipe: CellMoments.empty(ALPHABET, 16)})
    assert list(nothing.lacking(graph, graph.factors)) == [recipe]


def make_cells(alphabet: int) -> CellMoments:
    return CellMoments.from_features(torch.arange(alphabet), torch.zeros(alphabet, 16), alphabet)


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Exact(), BP(), LoopyBP(), Auto(), Extractor()], ids=repr)
@pytest.mark.parametrize("shape", [joint, chain])
def test_every_engine_separates_with_linear_features(full, engine, shape):
    image = blobs(3, seed=7).mean(0)
    out = separate(image, shape(3, evidence=LINEAR), full, infer=engine, search=Sample(2))
    assert out["source_1"].shape[-2:] == (SIZE, SIZE)
    assert torch.isfinite(out.evidence).all()


def test_linear_tables_serve_a_site_that_declares_any_feature(full):
    declared = compile_program(joint(2, evidence=LINEAR))
    tables = full.tables(declared, declared.factors)
    other = compile_program(joint(2, evidence=Feature()))
    x = {"mixture": full.codec.features(blobs(1))[0, :1].double()}
    priors = {name: torch.zeros(1, 1, ALPHABET).double() for name in declared.sources}
    answers = [Exact().plan(g, tables).posterior(priors, x) for g in (declared, other)]
    assert torch.equal(answers[0].log_evidence, answers[1].log_evidence)
    tokens = compile_program(joint(2, evidence=Token()))
    with pytest.raises(TableError, match="is Gaussian, but its site has a token"):
        Exact().plan(tokens, tables)


def test_diagonal_tables_are_counted_beside_them(full):
    both = full.count(joint(2, evidence=Feature()), blobs(POOL), mixtures=30)
    graph = compile_program(joint(2, evidence=Feature()))
    assert isinstance(both.tables(graph, graph.factors)["mixture"], GaussianTable)
    assert len(both.counts) == len(full.counts) + 1


# --- on disk -------------------------------------------------------------------------------------


def test_all_of_it_comes_back(full, tmp_path):
    back = load(full.save(tmp_path / "tiny"))
    assert back.counts == full.counts
    assert (back.shrink, back.card["format"]) == (Shrink(2.0, 0.05), 3)
    again = back.save(tmp_path / "again")
    for file in (tmp_path / "tiny").iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    plain = replace(full, shrink=Shrink())
    assert load(plain.save(tmp_path / "plain")).shrink == Shrink()


def test_damaged_cells_are_named(full, tmp_path):
    folder = full.save(tmp_path / "tiny")
    card = json.loads((folder / "bundle.json").read_text())
    entries = {bool(entry["recipe"].get("cells")): entry["file"] for entry in card["tables"]}
    whole = (folder / entries[True]).read_bytes()
    (folder / entries[True]).write_bytes(whole[:-9])
    with pytest.raises(BundleError, match="was swapped"):
        load(folder)
    shutil.copy(folder / entries[False], folder / entries[True])
    for entry in card["tables"]:
        entry.pop("sha256")
    (folder / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=rf"{entries[True]} is no readable table of moments of"):
        load(folder)


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    folder = Bundle("tiny", make_codec(), {"blob": make_gpt2()}).save(tmp_path / "tiny")
    monkeypatch.setattr(digits, "mnist_images", lambda split, root: blobs(POOL))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> str:
        line = ["count", "--bundle", str(folder), "--mixtures", "40", *map(str, arguments)]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_the_command_counts_them(run, tmp_path):
    file: Path = tmp_path / "program.py"
    file.write_text(
        "from mlass_ppl import Feature, mix, source\n\n"
        "def song():\n"
        "    parts = [source(name) for name in 'abc']\n"
        "    return mix('m', *parts, evidence=Feature(linear=True))\n"
    )
    said = run("--program", file)
    assert said.count(f"cells p(x(1 blob#1) | 1 blob#1): {POOL * TOKENS} features") == 1
    assert "already counted: cells p(x(1 blob#1)" in run("--evidence", "linear")
    assert f"{POOL} signals | {POOL * TOKENS} features" in (tmp_path / "tiny/README.md").read_text()
    assert "already" not in run("--evidence", "linear", "--force")
