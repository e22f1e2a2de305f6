"""Sources with codecs of their own: which codec is whose, tables, files, shapes by names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from audio_bundle import SAMPLES, STEMS, make_bundle, stems
from torch import Tensor

from mlass_ppl import BP, SMC, Feature, Mean, separate
from mlass_ppl.bundle import Bundle, load
from mlass_ppl.declare import Program, compile_program, mix, source
from mlass_ppl.errors import BundleError, CodecError, GraphError, PriorError
from mlass_ppl.graph import MixingGraph
from mlass_ppl.shapes import additive, balanced, chain, fine, joint, star
from mlass_ppl.tables import CellMoments, Counts, Recipe, count

LINEAR = Feature(linear=True)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("bundles") / "tiny-band"
    bundle.save(out)
    return out


def mixtures(number: int = 2) -> Tensor:
    return torch.stack(list(stems(number).values())).mean(0)


# --- whose codec is whose -------------------------------------------------------------------------


def test_a_source_has_the_codec_of_its_prior_a_mixture_the_main_one(bundle: Bundle) -> None:
    def program() -> Any:
        low, hits, other = source("low", prior="bass"), source("drums"), source("x", prior="piano")
        return mix("all", mix("inner", low, hits, codec="bass"), other)

    graph = compile_program(program)
    wanted = {"low": "bass", "drums": "drums", "x": "piano", "inner": "bass"}
    for name, key in wanted.items():
        assert bundle.codec_of(graph, name) is bundle.codecs[key]
    assert bundle.codec_of(graph, "all") is bundle.codec
    # without codecs of their own, as before
    plain = replace(bundle, codecs={"other": bundle.codec})
    for name in ("low", "drums", "all"):
        assert plain.codec_of(graph, name) is bundle.codec
    with pytest.raises(BundleError, match=r"no codec 'bass' for site 'inner'; .*\['other'\]"):
        plain.codec_of(graph, "inner")


def test_tables_have_the_alphabets_of_their_sites(bundle: Bundle) -> None:
    shapes = {str(recipe): own.shape for recipe, own in bundle.counts.items()}
    assert shapes["p(0.5 bass#1 + 0.5 drums#2 | 1 bass#1; 1 drums#2)"] == (16, 16, 32)
    assert shapes["cells p(x(1 piano#1) | 1 piano#1)"] == (16,)
    assert shapes["cells p(x(0.5 bass#1 + 0.5 drums#2) | 0.5 bass#1 + 0.5 drums#2)"] == (32,)
    graph = compile_program(chain(STEMS))
    tables = bundle.tables(graph, graph.factors)
    assert tables["mix_2"].shape == (16, 16, 32)
    assert tables["mixture"].shape == (32, 16, 32)


def test_cells_are_the_tokens_of_the_sources_own_codec(bundle: Bundle) -> None:
    """And the features those of the codec that hears the mixture."""
    signals = stems(60, seed=0)
    for name in STEMS:
        recipe = next(r for r in bundle.counts if str(r) == f"cells p(x(1 {name}#1) | 1 {name}#1)")
        tokens = bundle.codecs[name].encode(signals[name])
        heard = bundle.codec.features(signals[name])  # type: ignore[attr-defined]
        assert bundle.counts[recipe] == CellMoments.from_features(tokens, heard, 16)


def test_counted_pairs_are_those_of_simulated_mixtures(bundle: Bundle) -> None:
    """One signal of each source, so that every mixture is the same and can be told."""
    signals = stems(1)
    counted = replace(bundle, counts={}).count(chain(STEMS[:2]), signals, mixtures=7)
    (recipe,) = counted.counts
    tokens = [bundle.codecs[name].encode(signals[name]) for name in STEMS[:2]]
    child = bundle.codec.encode((signals["bass"] + signals["drums"]) / 2)
    once = Counts.from_tokens(tokens, child, (16, 16, 32))
    assert counted.counts[recipe] == Counts(once.shape, once.keys, 7 * once.values)


def test_counting_by_batches_and_by_many_changes_nothing(bundle: Bundle) -> None:
    """Whether a pool is encoded once or its signals as they are picked."""
    signals = stems(9)
    options: dict[str, Any] = {"codecs": bundle.codecs, "kind": lambda name: name}
    program = chain(STEMS, evidence=LINEAR)
    wanted = count(program, bundle.codec, signals, mixtures=40, **options)
    for size in (1, 7):
        assert wanted == count(
            program, bundle.codec, signals, mixtures=40, batch_size=size, **options
        )
    few = count(program, bundle.codec, signals, mixtures=5, **options)  # fewer than the pool
    again = count(program, bundle.codec, signals, mixtures=5, batch_size=2, **options)
    assert few == again


def test_main_codec_for_kinds_without_one(bundle: Bundle) -> None:
    options: dict[str, Any] = {"codecs": {"bass": bundle.codecs["bass"]}, "kind": lambda n: n}
    (own,) = count(chain(STEMS[:2]), bundle.codec, stems(5), mixtures=9, **options).values()
    assert own.shape == (16, 32, 32)


def test_codecs_of_other_lengths_and_alphabets_are_refused(bundle: Bundle) -> None:
    short = bundle.codecs["bass"].lasting(SAMPLES // 2)  # type: ignore[attr-defined]
    wrong = replace(bundle, codecs={**bundle.codecs, "bass": short}, counts={})
    with pytest.raises(CodecError, match=r"codec of 'bass' makes 10 tokens .* main codec 20"):
        wrong.count(chain(STEMS[:2]), stems(5), mixtures=3)
    swapped = replace(bundle, priors={**bundle.priors}, codecs={
        **bundle.codecs, "drums": bundle.codec
    }, counts={})  # fmt: skip
    counted = swapped.count(joint(STEMS[:2]), stems(5), mixtures=30)
    with pytest.raises(PriorError, match=r"prior 'drums' has 16 tokens, the codec 32"):
        separate(mixtures(1), joint(STEMS[:2]), counted, on_unseen="prior", search=SMC(2))


def test_sources_are_decoded_by_their_own_codecs(bundle: Bundle) -> None:
    program = chain(STEMS, evidence=LINEAR)
    found = separate(mixtures(), program, bundle, search=SMC(1), infer=BP(), estimate=Mean())
    gains = found["bass"][:, 0, 0] / bundle.codecs["bass"].decode(found.tokens["bass"])[:, 0, 0]
    for name in STEMS:
        own = bundle.codecs[name].decode(found.tokens[name]) * gains[:, None, None]
        torch.testing.assert_close(found[name], own, rtol=1e-4, atol=1e-6)


# --- files ----------------------------------------------------------------------------------------


def entry(card: dict[str, Any], recipe: str) -> Any:
    return next(
        one for one in card["tables"] if str(Recipe.from_json(one["recipe"])) == recipe
    )  # fmt: skip


def test_files_know_what_they_were_made_for(folder: Path) -> None:
    card = json.loads((folder / "bundle.json").read_text())
    prints = {key: facts["sha256"] for key, facts in card["codecs"].items()}
    assert {key: facts["codec"] for key, facts in card["priors"].items()} == prints
    assert len({card["codec"]["sha256"], *prints.values()}) == 4
    pair = entry(card, "p(0.5 bass#1 + 0.5 drums#2 | 1 bass#1; 1 drums#2)")
    assert pair["codecs"] == {key: prints[key] for key in ("bass", "drums")}
    assert entry(card, "cells p(x(1 piano#1) | 1 piano#1)")["codecs"] == {"piano": prints["piano"]}
    assert all(one["codec"] == card["codec"]["sha256"] for one in card["tables"])


def test_a_folder_gives_back_the_bundle(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    """But for the last bits of decoders and priors, which are written as float16."""
    back = load(folder)
    assert back.counts == bundle.counts
    assert list(back.codecs) == list(bundle.codecs)
    assert back.card["levels"] == bundle.card["levels"]
    for name in STEMS:
        given = stems(2)[name]
        assert torch.equal(back.codecs[name].encode(given), bundle.codecs[name].encode(given))
    back.save(tmp_path / "again")
    again = load(tmp_path / "again")
    for program in (chain(STEMS, evidence=LINEAR), joint(STEMS)):
        one = separate(mixtures(), program, back, search=SMC(3))
        other = separate(mixtures(), program, again, search=SMC(3))
        for name in STEMS:
            assert torch.equal(one[name], other[name])


def swap(folder: Path, first: str, second: str) -> None:
    """Exchange two codec files and what the card says of them, as whoever renames them would."""
    card = json.loads((folder / "bundle.json").read_text())
    codecs = card["codecs"]
    codecs[first], codecs[second] = codecs[second], codecs[first]
    (folder / "bundle.json").write_text(json.dumps(card))
    files = [folder / f"codec-{key}.safetensors" for key in (first, second)]
    files[0].rename(folder / "spare")
    files[1].rename(files[0])
    (folder / "spare").rename(files[1])


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [("bass", "drums", "prior 'bass'"), ("drums", "piano", "prior 'drums'")],
)
def test_codec_files_that_were_swapped_are_refused(
    folder: Path, tmp_path: Path, first: str, second: str, what: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    swap(copy, first, second)
    with pytest.raises(BundleError, match=rf"{what} in .* was made for another codec .*codec-"):
        load(copy)
    # the tables notice as well, where the priors are said to be of the new ones
    card = json.loads((copy / "bundle.json").read_text())
    for key in STEMS:
        card["priors"][key]["codec"] = card["codecs"][key]["sha256"]
    (copy / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=rf"table .*{first}.* was made for another codec"):
        load(copy)


def test_a_codec_file_swapped_behind_the_cards_back_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.copy(copy / "codec-drums.safetensors", copy / "codec-bass.safetensors")
    with pytest.raises(BundleError, match=r"codec-bass\.safetensors is not the file that"):
        load(copy)


def test_a_prior_of_the_main_codec_beside_codecs_of_others(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    """A bundle in which only some sources have one of their own."""
    prior = replace(bundle, codecs={"bass": bundle.codecs["bass"]}, counts={})
    prior.save(tmp_path / "some")
    card = json.loads((tmp_path / "some" / "bundle.json").read_text())
    assert card["priors"]["drums"]["codec"] == card["codec"]["sha256"]
    assert card["priors"]["bass"]["codec"] == card["codecs"]["bass"]["sha256"]
    assert set(load(tmp_path / "some").codecs) == {"bass"}
    card["priors"]["drums"]["codec"] = card["codecs"]["bass"]["sha256"]
    (tmp_path / "some" / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=r"prior 'drums' .* was made for another codec"):
        load(tmp_path / "some")


# --- shapes by names ------------------------------------------------------------------------------


def described(graph: MixingGraph) -> list[Any]:
    """Everything but the names of the sources and of the graph."""
    names = {name: f"s{place}" for place, name in enumerate(graph.sources)}
    return [
        (names.get(factor.child, factor.child), [names.get(p, p) for p in factor.parents],
         factor.linear, list(graph.leaf_weights(factor.child).values()))
        for factor in graph.factors
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [joint, chain, balanced, star, additive, fine])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_names_make_the_graph_that_their_number_makes(shape: Any, n: int) -> None:
    names = ("bass", "drums", "piano", "guitar")[:n]
    for given in (names, list(names)):
        program: Program = shape(given)
        graph, numbered = compile_program(program), compile_program(shape(n))
        assert graph.sources == names
        assert graph.name == f"{shape.__name__}({', '.join(names)})"
        assert numbered.name == f"{shape.__name__}({n})"
        assert numbered.sources == tuple(f"source_{i}" for i in range(1, n + 1))
        assert described(graph) == described(numbered)
        weights = graph.leaf_weights(graph.observed[0])
        assert weights == pytest.approx(dict.fromkeys(names, 1 / n))


def test_named_sources_take_the_priors_of_their_names(bundle: Bundle) -> None:
    graph = compile_program(chain(["piano", "bass"]))
    assert [bundle.prior_key(graph, name) for name in graph.sources] == ["piano", "bass"]
    graph = compile_program(chain(["piano", "bass"], prior="drums"))
    assert [bundle.prior_key(graph, name) for name in graph.sources] == ["drums", "drums"]
    with pytest.raises(BundleError, match="viola"):
        bundle.prior_key(compile_program(chain(["viola", "bass"])), "viola")


@pytest.mark.parametrize("shape", [joint, chain, balanced, star, additive])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (1, "two or more sources, got n=1"),
        (["bass"], r"two or more sources, got n=\['bass'\]"),
        ([], "two or more sources"),
        (0, "two or more sources, got n=0"),
        ("bass", "got n='bass'. Give their number, or a list of names"),
        (["bass", "bass"], "bass"),
        (["bass", 3], "3"),
        (["bass", ""], "name"),
        (["bass", "mixture"], "mixture"),
    ],
)
def test_names_that_make_no_program(shape: Any, given: Any, message: str) -> None:
    if shape is star and given == ["bass", "mixture"]:
        given = ["bass", "mixture_1"]
    with pytest.raises(GraphError, match=message):
        compile_program(shape(given))


@pytest.mark.parametrize("given", [2.0, None, True])
def test_numbers_that_are_none(given: Any) -> None:
    with pytest.raises(GraphError, match="sources"):
        chain(given)
