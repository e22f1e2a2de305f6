"""Bundles of any program: features, further codecs, back-off, symmetry, and counting what lacks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ALPHABET, blobs, make_codec, make_gpt2, make_ngram

from mlass_ppl._bundle_files import card_digest
from mlass_ppl.bundle import FORMAT, Bundle, load
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import BundleError, CodecError, DataError, GraphError, TableError
from mlass_ppl.evidence import Feature, Soft
from mlass_ppl.infer import BP, Extractor
from mlass_ppl.shapes import additive, chain, fine, joint, star
from mlass_ppl.tables import (
    Additive,
    BackOff,
    Counts,
    GaussianTable,
    Moments,
    Shrink,
    Table,
    count,
)
from mlass_ppl.train.card import write_card

FINE = 9


def rich():
    """A latent partial mixture in tokens of another codec, and a feature."""
    partial = mix("partial", source("a"), source("b"), codec="fine")
    return mix("song", partial, source("c"), evidence=Feature())


def evenly():
    return mix("m", source("a"), source("b"), symmetric=True)


@pytest.fixture(scope="module")
def empty() -> Bundle:
    return Bundle("tiny", make_codec(), {"blob": make_gpt2()})


@pytest.fixture(scope="module")
def full(empty) -> Bundle:
    codecs = {"fine": make_codec(alphabet=FINE, seed=4)}
    bundle = replace(empty, codecs=codecs, smoothing=BackOff(2.0), shrink=Shrink(9.0, 0.05))
    return bundle.count(rich, blobs(100), mixtures=60).count(joint(2), blobs(100), mixtures=60)


@pytest.fixture(scope="module")
def saved(full, tmp_path_factory) -> Path:
    return full.save(tmp_path_factory.mktemp("bundles") / "tiny")


# --- counting what lacks -------------------------------------------------------------------------


def test_a_bundle_counts_what_a_program_lacks_and_no_more(empty):
    calls: list[tuple[int, int]] = []
    one = empty.count(
        chain(2), blobs(100), mixtures=80, seed=3, progress=lambda *done: calls.append(done)
    )
    assert calls[-1] == (80, 80)
    assert not empty.counts  # a new bundle
    graph = compile_program(chain(2))
    kind = {"kind": lambda source: "blob"}
    assert one.counts == count(graph, empty.codec, blobs(100), mixtures=80, seed=3, **kind)
    assert one.count(joint(2), blobs(100)) is one  # the same recipe
    more = one.count(chain(3), blobs(100), mixtures=50)
    assert len(more.counts) == 2
    assert all(more.counts[recipe] is counts for recipe, counts in one.counts.items())
    assert isinstance(more.tables(graph, graph.factors)["mixture"], Table)
    with pytest.raises(DataError, match="'blob'"):
        one.count(chain(3), {"other": blobs(100)})


def test_counting_for_an_engine_counts_its_factors(empty):
    bundle = empty.count(joint(3), blobs(100), infer=Extractor(), mixtures=50)
    starred = compile_program(star(3))
    assert len(bundle.counts) == 1
    assert len(bundle.tables(starred, starred.factors)) == 3
    feeling = joint(3, evidence=Feature())
    felt = bundle.count(feeling, blobs(100), infer=Extractor(), mixtures=50)
    graph = compile_program(feeling)
    found = felt.tables(graph, Extractor().factors(graph))["mixture|source_2"]
    assert isinstance(found, GaussianTable)
    assert (found.parents, found.width) == ((ALPHABET,), 16)


def test_tables_of_other_alphabets_are_counted_again(empty):
    bundle = empty.count(joint(2), blobs(100), mixtures=50)
    wrong = replace(
        bundle, counts=dict.fromkeys(bundle.counts, Counts.from_dense(torch.ones(7, 7, 7)))
    )
    graph = compile_program(joint(2))
    assert list(wrong.lacking(graph, graph.factors)) == list(bundle.counts)
    assert wrong.count(graph, blobs(100), mixtures=50).counts == bundle.counts
    nothing = replace(bundle, counts=dict.fromkeys(bundle.counts, Counts.empty((6, 6, 6))))
    assert nothing.count(graph, blobs(100), mixtures=50).counts == bundle.counts


def test_what_was_counted_is_in_the_card(empty, tmp_path):
    bundle = empty.count(chain(3), blobs(100), mixtures=40, seed=7)
    bundle = replace(bundle, counts=dict(list(bundle.counts.items())[:1]))
    bundle = bundle.count(chain(3), blobs(100), mixtures=30, seed=8)
    (first, second) = load(bundle.save(tmp_path / "x")).card["tables"]
    assert (first["mixtures"], first["seed"]) == (40, 7)
    assert (second["mixtures"], second["seed"]) == (30, 8)
    assert "360 tuples" in first["coverage"]


# --- tables --------------------------------------------------------------------------------------


def test_every_kind_of_table_is_made_as_declared(full):
    graph = compile_program(rich)
    tables = full.tables(graph, graph.factors)
    partial, song = tables["partial"], tables["song"]
    assert isinstance(partial, Table)
    assert partial.shape == (ALPHABET, ALPHABET, FINE)
    assert partial.background is not None
    assert isinstance(song, GaussianTable)
    assert (song.parents, song.width) == ((FINE, ALPHABET), 16)
    moments = full.counts[full.recipe(graph, graph.factors[1])]
    assert isinstance(moments, Moments)
    assert torch.equal(song.mean, GaussianTable.from_moments(moments, Shrink(9.0, 0.05)).mean)
    assert full.codec_of(graph, "partial") is full.codecs["fine"]
    assert full.codec_of(graph, "song") is full.codec_of(graph, "a") is full.codec


def test_evidence_on_the_same_tokens_needs_no_other_table(full):
    soft = compile_program(joint(2, evidence=Soft()))
    assert not full.lacking(soft, soft.factors)
    felt = compile_program(joint(2, evidence=Feature()))
    assert len(full.lacking(felt, felt.factors)) == 1
    with pytest.raises(TableError, match=r"no table for 'mixture'.*p\(x\(.*(?s:.)*mlass count"):
        full.tables(felt, felt.factors)


def test_a_missing_codec_is_named(empty):
    graph = compile_program(rich)
    with pytest.raises(BundleError, match=r"no codec 'fine' for site 'partial'.*it has \[\]"):
        empty.tables(graph, graph.factors)
    with pytest.raises(BundleError, match="no codec 'fine'"):
        empty.count(rich, blobs(20))
    longer = replace(empty, codecs={"fine": make_codec(size=16)})
    with pytest.raises(CodecError, match="16 tokens of a signal, the main codec 9"):
        longer.count(rich, blobs(20), mixtures=5)


def test_features_without_samples_are_no_table(full):
    graph = compile_program(rich)
    recipe = full.recipe(graph, graph.factors[1])
    none = replace(full, counts={**full.counts, recipe: Moments.empty((FINE, ALPHABET), 16)})
    with pytest.raises(TableError, match="no table for 'song'"):
        none.tables(graph, graph.factors)
    other = replace(full, counts={**full.counts, recipe: Moments.empty((3, 3), 16)})
    other.counts[recipe] += Moments.from_features(
        [torch.zeros(1).long()] * 2, torch.zeros(1, 16), (3, 3)
    )
    with pytest.raises(TableError, match=rf"\(3, 3\).*needs \({FINE}, {ALPHABET}\)"):
        other.tables(graph, graph.factors)


@pytest.mark.parametrize("evidence", [None, Feature()], ids=["tokens", "features"])
def test_symmetric_parents_are_counted_in_both_orders(empty, evidence):
    graph = compile_program(evenly)
    if evidence is not None:
        graph = graph.with_evidence({"m": evidence})
    bundle = empty.count(graph, blobs(100), mixtures=30)
    table = bundle.tables(graph, graph.factors)["m"]
    (counts,) = bundle.counts.values()
    if isinstance(table, Table):
        assert isinstance(counts, Counts)
        dense = counts.dense() + counts.dense().transpose(0, 1)
        assert not torch.equal(counts.dense(), counts.dense().transpose(0, 1))
        assert torch.equal(table.dense(), Table.from_counts(Counts.from_dense(dense)).dense())
    else:
        assert torch.allclose(table.mean, table.mean.transpose(0, 1))
        assert not torch.allclose(table.mean[0, 1], table.mean[1, 2])


def test_parents_of_other_priors_are_not_exchangeable(empty):
    def kinds():
        return mix("m", source("blob"), source("ring"), symmetric=True)

    two = replace(empty, priors={"blob": make_gpt2(), "ring": make_ngram(empty.codec)})
    graph = compile_program(kinds)
    for ask in (
        lambda: two.tables(graph, graph.factors),
        lambda: two.count(kinds, blobs(50), mixtures=10),
    ):
        with pytest.raises(GraphError, match=r"'m' of .* symmetric=True.*Drop symmetric=True"):
            ask()
    single = Extractor().factors(graph)  # of one parent each, which changes places with nothing
    two.count(graph, blobs(50), infer=Extractor(), mixtures=10).tables(graph, single)


# --- on disk -------------------------------------------------------------------------------------


def test_all_of_it_comes_back(full, saved, tmp_path):
    back = load(saved)
    assert back.counts == full.counts
    assert (back.smoothing, back.shrink) == (BackOff(2.0), Shrink(9.0, 0.05))
    assert list(back.codecs) == ["fine"]
    images = blobs(30, 5)
    same = back.codecs["fine"].encode(images) == full.codecs["fine"].encode(images)
    assert same.float().mean() > 0.99
    assert (saved / "codec-fine.safetensors").is_file()
    assert back.card["format"] == FORMAT == 3
    again = back.save(tmp_path / "again")
    for file in saved.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("change", "version"),
    [
        (lambda b: b, 1),
        (lambda b: replace(b, smoothing=Additive(0.5)), 1),
        (lambda b: replace(b, smoothing=BackOff(0.5)), 2),
        (lambda b: replace(b, shrink=Shrink(1.0)), 2),
        (lambda b: replace(b, codecs={"fine": make_codec(alphabet=FINE)}), 2),
        (lambda b: b.count(joint(2), blobs(50), mixtures=10), 3),
        (lambda b: b.count(joint(2, evidence=Feature()), blobs(50), mixtures=10), 3),
    ],
)
def test_what_an_earlier_format_can_hold_is_written_in_it(empty, tmp_path, change, version):
    bundle = change(empty)
    back = load(bundle.save(tmp_path / "x"))
    assert back.card["format"] == version
    assert (back.smoothing, back.shrink) == (bundle.smoothing, bundle.shrink)
    assert back.counts == bundle.counts
    plain = replace(back, codecs={}, shrink=Shrink(), smoothing=None, counts={})
    assert load(plain.save(tmp_path / "y")).card["format"] == 1


def test_what_could_not_be_read_back_is_not_saved(full, tmp_path):
    for codecs, message in (
        ({"fine": object()}, "codec of class object"),
        ({"../fine": make_codec(alphabet=FINE)}, "cannot name a file"),
        ({"": make_codec(alphabet=FINE)}, "cannot name a file"),
        ({}, r"counted for codecs \['fine'\], which bundle 'tiny' lacks"),
    ):
        with pytest.raises(BundleError, match=message):
            replace(full, codecs=codecs).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value)


def edit(folder: Path, change: Any) -> None:
    card = json.loads((folder / "bundle.json").read_text())
    change(card)
    card["sha256"] = card_digest(card)
    (folder / "bundle.json").write_text(json.dumps(card))


def test_another_codec_of_a_key_is_noticed(full, folder, tmp_path):
    swapped = replace(full, codecs={"fine": make_codec(alphabet=FINE, seed=9)}).save(tmp_path / "o")
    shutil.copy(swapped / "codec-fine.safetensors", folder)
    refused(folder, "codec-fine.safetensors", "was swapped")
    checksum = json.loads((swapped / "bundle.json").read_text())["codecs"]["fine"]["sha256"]
    edit(folder, lambda card: card["codecs"]["fine"].update(sha256=checksum))
    refused(folder, "table p(fine[", "another codec", "codec-fine.safetensors", "mlass train")


def test_damaged_moments_and_cards_are_named(folder):
    (entry,) = [
        entry
        for entry in json.loads((folder / "bundle.json").read_text())["tables"]
        if entry["recipe"].get("feature")
    ]
    (other,) = [file for file in folder.glob("table-2of2*") if file.name != entry["file"]][:1]
    whole = (folder / entry["file"]).read_bytes()
    (folder / entry["file"]).write_bytes(whole[:-9])
    refused(folder, entry["file"], "was swapped")
    shutil.copy(other, folder / entry["file"])
    edit(folder, lambda card: [entry.pop("sha256") for entry in card["tables"]])
    refused(folder, entry["file"], "no readable table of moments")
    (folder / entry["file"]).write_bytes(whole)
    load(folder)
    edit(folder, lambda card: card.update(shrink={"strength": -1}))
    refused(folder, "bundle.json", "is damaged", "strength of Shrink")


def test_the_card_in_words_tells_of_all_of_it(saved, folder):
    write_card(load(folder))
    text = (folder / "README.md").read_text()
    assert "## Codec `fine`" in text
    assert "BackOff(strength=2.0)" in text
    assert "Shrink(strength=9.0, min_std=0.05)" in text
    assert "| `p(x(0.333 blob#1" in text
    assert "60 |" in text
    edit(folder, lambda card: [entry.pop("mixtures") for entry in card["tables"]])
    write_card(load(folder))
    assert "| ? |" in (folder / "README.md").read_text()


# --- the shipped bundle --------------------------------------------------------------------------


def test_the_shipped_bundle_is_read_and_written_as_it_was(tmp_path):
    bundle = load("mnist")
    assert (bundle.smoothing, list(bundle.codecs)) == (None, ["middle", "fine"])
    assert bundle.shrink == Shrink(min_std=0.04)
    assert bundle.refiner is not None
    assert bundle.card["format"] == 3  # its tables are packed
    assert bundle.path is not None
    again = bundle.save(tmp_path / "mnist")
    for file in again.iterdir():
        # releases of zlib may deflate tables to other bytes, of which the card has checksums
        if not file.name.startswith("table-") and file.name != "bundle.json":
            assert file.read_bytes() == (bundle.path / file.name).read_bytes(), file.name
    back = load(again)
    assert back.counts == bundle.counts
    for card in (back.card, bundle.card):
        del card["sha256"]
        for entry in card["tables"]:
            del entry["sha256"], entry["bytes"]
    assert back.card == bundle.card
    for program in (joint(2), joint(3), chain(3), star(2), additive(5), fine(2), fine(3)):
        graph = compile_program(program)
        assert not bundle.lacking(graph, BP().factors(graph))
