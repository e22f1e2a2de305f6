"""Checkpoints as LASS and MLASS published them: the same model afterwards, and any engine on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lass_files import NAME, K, counts, gpt2_state, put, vqvae_state, write_published
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import mlass_ppl as mlass
from mlass_ppl.cli import app
from mlass_ppl.codecs import LassVQVAE
from mlass_ppl.declare import compile_program
from mlass_ppl.importing import import_lass_mnist

SIDE = 12


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def bundle(published) -> mlass.Bundle:
    return import_lass_mnist(published)


def images(number: int, side: int = SIDE, seed: int = 5) -> Tensor:
    return torch.rand(number, 1, side, side, generator=torch.Generator().manual_seed(seed))


def table(bundle: mlass.Bundle, program, engine=mlass.BP(), place: int = -1):
    graph = compile_program(program)
    return bundle.counts[bundle.recipe(graph, engine.factors(graph)[place])]


# --- the tables ----------------------------------------------------------------------------------


def test_each_table_is_under_the_recipe_of_what_was_counted(bundle):
    pair, links = counts(K, K, K), counts(2, K, K, K, seed=4)
    alone = counts(3, K, K, seed=3)
    assert torch.equal(table(bundle, mlass.joint(2)).dense(), pair.long())
    # theirs is [link, mixture, partial mixture, source]
    assert torch.equal(table(bundle, mlass.chain(3)).dense(), links[1].permute(1, 2, 0).long())
    star = table(bundle, mlass.star(3), mlass.Extractor())
    assert torch.equal(star.dense(), alone.sum(0).long())
    assert len(bundle.counts) == 3


def test_the_first_link_of_a_chain_serves_two_sources_where_lass_s_table_is_missing(published):
    link = published / "models/sums-MNIST-gm/best_210.pt"
    alone = import_lass_mnist(published, sums=[link])
    expected = counts(2, K, K, K, seed=4)[0].permute(1, 2, 0).long()
    assert torch.equal(table(alone, mlass.chain(2)).dense(), expected)
    assert "left out" not in alone.card["imported"]["models/sums-MNIST-gm/best_210.pt"]


def test_the_card_tells_every_file_and_what_was_left_out(bundle):
    told = bundle.card["imported"]
    assert len(told) == 5
    left = {name: facts["left out"] for name, facts in told.items() if "left out" in facts}
    assert list(left) == ["models/sums-MNIST-gm/best_210.pt"]
    assert "0.5 digit#1 + 0.5 digit#2" in left["models/sums-MNIST-gm/best_210.pt"]


def sparse_forms(dense: Tensor, folder: Path) -> list[Path]:
    """A table as PyTorch saves it sparse (once with an entry in two parts, and one of zero), and as
    the package `sparse` does."""
    coo = dense.to_sparse_coo()
    where, values = coo.indices(), coo.values()
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    parts = torch.cat([where[:, order], where[:, :1], where[:, :1]], 1)
    split = torch.cat([values[order], torch.tensor([2.0, 0.0])])
    split[: len(order)][order == 0] -= 2
    assert split.min() >= 0
    arrays = {"coords": where.numpy(), "data": values.numpy(), "shape": np.array(dense.shape)}
    np.savez_compressed(folder / "c.npz", **arrays, fill_value=np.float32(0))
    return [
        put(coo, folder / "a.pt"),
        put(
            torch.sparse_coo_tensor(parts, split, dense.shape, check_invariants=True),
            folder / "b.pt",
        ),
        folder / "c.npz",
    ]


def test_sparse_tables_are_the_dense_ones(published, bundle, tmp_path):
    dense = counts(K, K, K)
    dense[0, 0, 0] = 3
    expected = mlass.Counts.from_dense(dense)
    for path in sparse_forms(dense, tmp_path):
        found = import_lass_mnist(published, sums=[path])
        assert table(found, mlass.joint(2)) == expected, path.name
    links = counts(2, K, K, K, seed=4).to_sparse_coo()
    found = import_lass_mnist(published, sums=[put(links, tmp_path / "links.pt")])
    assert table(found, mlass.chain(3)) == table(bundle, mlass.chain(3))


# --- as a bundle ---------------------------------------------------------------------------------


def test_the_bundle_comes_back_from_disk(bundle, tmp_path):
    back = mlass.load(bundle.save(tmp_path / "lass"))
    assert isinstance(back.codec, LassVQVAE)
    assert back.codec.config == bundle.codec.config
    assert back.card["codec"]["kind"] == "lass-vqvae"
    assert back.card["priors"]["digit"]["begin"] == back.priors["digit"].begin == 0
    assert back.card["format"] == 3  # an older library must refuse it by name
    assert back.card["imported"] == bundle.card["imported"]
    assert back.counts == bundle.counts
    x = images(40)
    assert (back.codec.encode(x) == bundle.codec.encode(x)).float().mean() > 0.99  # float16
    tokens = bundle.codec.encode(x)
    assert torch.allclose(back.priors["digit"](tokens), bundle.priors["digit"](tokens), atol=0.02)
    again = mlass.load(back.save(tmp_path / "again"))
    assert torch.equal(again.codec.codebook.weight, back.codec.codebook.weight)


def test_a_damaged_begin_token_of_a_card_is_refused(bundle, tmp_path):
    folder = bundle.save(tmp_path / "lass")
    card = json.loads((folder / "bundle.json").read_text())
    card["priors"]["digit"]["begin"] = -3
    (folder / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(mlass.errors.BundleError, match=r"begin token \(-3\)"):
        mlass.load(folder)


def test_every_engine_runs_on_it(bundle):
    x = images(3)
    for program, engine in (
        (mlass.joint(2), mlass.Exact()),
        (mlass.chain(2), mlass.BP()),
        (mlass.chain(3), mlass.BP()),
        (mlass.star(3), mlass.Extractor()),
    ):
        out = mlass.separate(x, program, bundle, infer=engine, search=mlass.Sample(8))
        assert out.evidence.isfinite().all()
        assert out["source_1"].shape == x.shape
        if len(out.tokens) == 2:  # exact support: what was drawn was counted with the observed
            seen = counts(K, K, K)[(*out.tokens.values(), bundle.codec.encode(x))]
            assert (seen > 0).all()


def test_exact_and_bp_are_lass_s_posterior_of_the_first_token(bundle):
    """prior times prior times p(m | a, b), each prior begun with code 0."""
    x = images(4)
    m = bundle.codec.encode(x)[:, 0]
    with torch.no_grad():
        zero = torch.zeros(1, 1, dtype=torch.long)
        prior = bundle.priors["digit"].model(zero).logits[0, 0].softmax(-1).double()
    sums = counts(K, K, K).double()
    likelihood = sums / sums.sum(-1, keepdim=True)
    expected = torch.stack([(prior[:, None] * prior * likelihood[..., t]).sum() for t in m]).log()
    for engine in (mlass.Exact(), mlass.BP()):
        out = mlass.separate(x, mlass.joint(2), bundle, infer=engine, search=mlass.Sample(2))
        assert torch.allclose(out.evidence[:, 0, 0].double(), expected, atol=1e-4)


def test_what_the_files_lack_can_be_counted(bundle):
    graph = compile_program(mlass.chain(4))
    assert len(bundle.lacking(graph, graph.factors)) == 1
    full = bundle.count(graph, images(20), mixtures=30)
    assert not full.lacking(graph, graph.factors)
    assert full.counts.keys() > bundle.counts.keys()


def test_the_published_sizes_are_read_from_the_files(tmp_path):
    torch.manual_seed(0)
    put(vqvae_state(256, 128), tmp_path / "vqvae" / NAME)
    put(gpt2_state(256, 49, 128), tmp_path / "unconditioned" / NAME)
    sums = torch.zeros(256, 256, 256)
    where = torch.randint(0, 256, (3, 20_000))
    sums[tuple(where)] = 4.0
    put(sums, tmp_path / "sum" / NAME)
    bundle = import_lass_mnist(tmp_path)
    codec, prior = bundle.codec, bundle.priors["digit"]
    assert codec.config == type(codec.config)()  # the published sizes are the defaults
    assert (codec.signal_shape, codec.token_shape, codec.alphabet) == ((1, 28, 28), (7, 7), 256)
    assert (prior.length, prior.alphabet, prior.begin) == (49, 256, 0)
    config = prior.model.config
    assert (config.n_layer, config.n_head, config.n_embd, config.vocab_size) == (3, 2, 128, 256)
    assert torch.equal(table(bundle, mlass.joint(2)).dense(), sums.long())
    out = mlass.separate(
        images(1, 28), mlass.joint(2), bundle, search=mlass.Sample(1), on_unseen="prior"
    )
    assert out["source_2"].shape == (1, 1, 28, 28)


# --- the command ---------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_makes_a_bundle_that_separates_files(published, tmp_path):
    out = tmp_path / "models" / "lass"
    said = run("import", "lass-mnist", published, "--out", out)
    assert "checkpoints/vqvae/256-sigmoid-big.pt: as codec" in said
    assert "begin 0" in said
    assert f"mlass separate IMAGE --bundle {out}" in said
    assert mlass.load(out).name == "lass"
    picture = (images(1)[0, 0].numpy() * 255).astype("uint8")
    Image.fromarray(picture).save(tmp_path / "mixed.png")
    done = tmp_path / "separated"
    options = ("--bundle", out, "--infer", "exact", "--candidates", 4, "--out", done)
    run("separate", tmp_path / "mixed.png", *options)
    assert (done / "mixed" / "source_2.png").is_file()


def test_the_command_does_not_replace_a_bundle_unasked(published, tmp_path):
    run("import", "lass-mnist", published, "--out", tmp_path / "x")
    assert "--force" in run("import", "lass-mnist", published, "--out", tmp_path / "x", code=2)
    run("import", "lass-mnist", published, "--out", tmp_path / "x", "--force")


def test_files_may_lie_in_the_archive_s_own_folder_or_have_other_names(published, tmp_path):
    inner = import_lass_mnist(published / "checkpoints")
    assert len(inner.counts) == 2  # models/ lies outside
    outer = tmp_path / "repository"
    outer.mkdir()
    (outer / "lass_mnist").symlink_to(published)
    assert import_lass_mnist(outer).counts == import_lass_mnist(published).counts
    vqvae = put(vqvae_state(), tmp_path / "mine/a.pt")
    prior = put(gpt2_state(), tmp_path / "mine/b.pt")
    first = put(counts(K, K, K), tmp_path / "mine/c.pt")
    second = put(counts(3, K, K), tmp_path / "mine/d.pt")
    options = ("--vqvae", vqvae, "--prior", prior, "--sums", first, second, "--heads", 4)
    run("import", "lass-mnist", tmp_path / "mine", *options, "--out", tmp_path / "own")
    own = mlass.load(tmp_path / "own")
    assert len(own.counts) == 2
    assert own.priors["digit"].model.config.n_head == 4
    assert replace(own, counts={}).card["imported"].keys() == {"a.pt", "b.pt", "c.pt", "d.pt"}
