"""Bundles: what is saved comes back, finds its tables and priors, and is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import ALPHABET, TOKENS, blobs, count_tables, make_codec, make_gpt2

from mlass_ppl.bundle import Bundle, list_bundles, load
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import BundleError, TableError
from mlass_ppl.infer import Extractor
from mlass_ppl.priors import CausalLM, NGram, gpt2_config
from mlass_ppl.shapes import chain, joint
from mlass_ppl.tables import Additive, Counts

CARD = {"data": "blobs", "codec": {"psnr_db": 12.5}, "priors": {"blob": {"nats": 1.5}}}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    made = Bundle("tiny", make_codec(), {"blob": make_gpt2()}, card=CARD)
    return count_tables(made, sources=(2,), mixtures=200)


@pytest.fixture(scope="module")
def saved(bundle, tmp_path_factory) -> Path:
    return bundle.save(tmp_path_factory.mktemp("bundles") / "tiny")


# --- round trip ----------------------------------------------------------------------------------


def test_what_is_saved_comes_back(bundle, saved):
    back = load(saved)
    assert (back.name, back.path, back.smoothing) == ("tiny", saved, None)
    assert back.codec.config == bundle.codec.config
    assert back.counts == bundle.counts
    assert list(back.priors) == ["blob"]
    assert not back.codec.training
    assert not any(p.requires_grad for p in back.codec.parameters())
    images = blobs(50, 9)
    tokens = back.codec.encode(images)
    assert (tokens == bundle.codec.encode(images)).float().mean() > 0.99  # float16 moves borders
    assert torch.allclose(back.codec.decode(tokens), bundle.codec.decode(tokens), atol=1e-2)
    assert torch.allclose(back.priors["blob"](tokens), bundle.priors["blob"](tokens), atol=0.03)
    assert back.card["data"] == "blobs"
    assert back.card["codec"]["psnr_db"] == 12.5
    assert back.card["priors"]["blob"]["nats"] == 1.5
    assert back.card["priors"]["blob"]["length"] == TOKENS
    assert "5,400" not in back.card["tables"][0]["coverage"]
    assert "1,800 tuples" in back.card["tables"][0]["coverage"]
    assert not list(saved.glob("*.part"))


def test_saving_what_was_loaded_changes_nothing(saved, tmp_path):
    again = load(saved).save(tmp_path / "again")
    for file in saved.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_weights_are_stored_in_half_precision_without_training_statistics(saved):
    state = load_file(saved / "codec.safetensors")
    assert all(v.dtype == torch.float16 for v in state.values() if v.is_floating_point())
    assert not [key for key in state if key.endswith(("embed_avg", "cluster_size"))]
    assert "lm_head.weight" not in load_file(saved / "prior-blob.safetensors")


def test_smoothing_is_part_of_the_bundle(bundle, tmp_path):
    smoothed = replace(bundle, smoothing=Additive(0.25))
    back = load(smoothed.save(tmp_path / "smooth"))
    assert back.smoothing == Additive(0.25)
    graph = compile_program(joint(2))
    assert back.tables(graph, graph.factors)["mixture"].background is not None
    assert back.card["format"] == 3


def test_a_card_may_hold_any_language(bundle, tmp_path):
    named = replace(bundle, name="Ziffern 数字", card={**CARD, "note": "größer"})
    path = named.save(tmp_path / "x")
    assert "größer" in (path / "bundle.json").read_text(encoding="utf-8")
    assert load(path).name == "Ziffern 数字"


# --- tables and priors of a graph ----------------------------------------------------------------


def test_a_table_serves_every_program_with_its_recipe(bundle):
    def song():
        return mix("song", source("drums"), source("bass"))

    graph, same = compile_program(song), compile_program(chain(2))
    mine = bundle.tables(graph, graph.factors)["song"]
    assert torch.equal(mine.dense(), bundle.tables(same, same.factors)["mixture"].dense())
    factors = Extractor().factors(graph)
    assert set(bundle.tables(graph, factors)) == {"song|drums", "song|bass"}


def test_a_missing_table_names_the_site_and_the_command(bundle, saved):
    graph = compile_program(chain(3))
    with pytest.raises(
        TableError, match=r"(?s)no table for 'mixture' of 'chain\(3\)'.*mlass count"
    ):
        bundle.tables(graph, graph.factors)
    with pytest.raises(TableError, match=f"--bundle {saved}"):
        load(saved).tables(graph, graph.factors)


def test_a_table_of_another_alphabet_is_refused(bundle):
    graph = compile_program(joint(2))
    wrong = dict.fromkeys(bundle.counts, Counts.from_dense(torch.ones(7, 7, 7)))
    with pytest.raises(TableError, match=r"(?s)\(7, 7, 7\).*needs \(6, 6, 6\).*mlass count"):
        replace(bundle, counts=wrong).tables(graph, graph.factors)


def test_a_table_that_counted_nothing_is_no_table(bundle):
    graph = compile_program(joint(2))
    empty = replace(bundle, counts=dict.fromkeys(bundle.counts, Counts.empty((ALPHABET,) * 3)))
    with pytest.raises(TableError, match="no table for 'mixture'"):
        empty.tables(graph, graph.factors)


def test_a_source_finds_its_prior():
    a, b = NGram.uniform(ALPHABET), NGram.uniform(ALPHABET)
    one, two = (Bundle("x", make_codec(), priors) for priors in ({"a": a}, {"a": a, "b": b}))

    def program():
        return mix("m", source("a"), source("any"), source("c", prior="b"))

    graph = compile_program(program)
    assert one.prior_key(graph, "any") == "a"  # the only one there is
    assert two.prior_key(graph, "a") == "a"  # its own name
    assert two.prior_key(graph, "c") == "b"  # the one it declares
    with pytest.raises(BundleError, match=r"source 'any'; it has \['a', 'b'\].*prior=\.\.\."):
        two.prior_key(graph, "any")
    with pytest.raises(BundleError, match="declared prior 'b'"):
        one.prior_key(graph, "c")  # never another one than the one it declares

    def own_name():
        return mix("m", source("a", prior="drums"), source("b"))

    with pytest.raises(BundleError, match="declared prior 'drums'"):
        two.prior_key(compile_program(own_name), "a")


# --- finding -------------------------------------------------------------------------------------


def test_bundles_are_found_by_name(saved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLASS_MODELS", str(saved.parent))
    assert saved in list_bundles()
    assert load("tiny").path == saved
    with pytest.raises(BundleError, match=r"no bundle 'nope'.*'tiny'") as caught:
        load("nope")
    assert "MLASS_MODELS" in str(caught.value)
    monkeypatch.delenv("MLASS_MODELS")
    with pytest.raises(BundleError, match="no bundle 'tiny'"):
        load("tiny")
    monkeypatch.setenv("MLASS_MODELS", str(tmp_path / "not there"))
    assert saved not in list_bundles()


def test_a_folder_without_a_card_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"neither a folder with a bundle\.json") as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- saving --------------------------------------------------------------------------------------


def diverged() -> CausalLM:
    prior = make_gpt2()
    prior.model.transformer.ln_f.bias[0] = float("inf")
    return prior


def untied() -> CausalLM:
    from transformers import GPT2LMHeadModel

    config = gpt2_config(ALPHABET, TOKENS, width=8, layers=1, heads=1)
    config.tie_word_embeddings = False
    return CausalLM(GPT2LMHeadModel(config), ALPHABET)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        (lambda: {"blob": NGram.uniform(ALPHABET)}, "prior 'blob' is no CausalLM"),
        (lambda: {"../blob": make_gpt2()}, "cannot name a file"),
        (lambda: {"": make_gpt2()}, "cannot name a file"),
        (lambda: {"blob": untied()}, "tie_word_embeddings.*Build it with gpt2_config"),
        (lambda: {"blob": diverged()}, r"prior-blob\.safetensors.*not finite"),
    ],
)
def test_what_could_not_be_read_back_is_not_saved(bundle, tmp_path, priors, message):
    with pytest.raises(BundleError, match=message):
        replace(bundle, priors=priors()).save(tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.json").exists()


def test_only_codecs_with_a_format_are_saved(bundle, tmp_path):
    with pytest.raises(BundleError, match="codec of class object"):
        replace(bundle, codec=object()).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
