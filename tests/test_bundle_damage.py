"""A damaged, swapped or newer bundle says which file is wrong and what helps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import count_tables, make_codec, make_gpt2

from mlass_ppl._bundle_files import agrees, card_digest, check_card, entries
from mlass_ppl.bundle import FORMAT, Bundle, list_bundles, load, seal
from mlass_ppl.declare import compile_program
from mlass_ppl.errors import BundleError, TableError
from mlass_ppl.shapes import joint, star
from mlass_ppl.tables import Counts, save_counts
from mlass_ppl.weights import load_weights

CARD = {"data": "blobs", "codec": {"psnr_db": 12.5}, "priors": {"blob": {"nats": 1.5}}}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    made = Bundle("tiny", make_codec(), {"blob": make_gpt2()}, card=CARD)
    return count_tables(made, sources=(2,), mixtures=200)


@pytest.fixture(scope="module")
def saved(bundle, tmp_path_factory) -> Path:
    return bundle.save(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], sealed: bool = True) -> None:
    """Change the card; sealed: with the checksum of what it then tells."""
    card = json.loads((folder / "bundle.json").read_text())
    change(card)
    if sealed:
        card["sha256"] = card_digest(card)
    (folder / "bundle.json").write_text(json.dumps(card))


def table_file(folder: Path, number: int = 0) -> Path:
    return sorted(folder.glob("table-*.safetensors"))[number]


def refused(folder: Path, *words: str) -> None:
    """Loading must fail with one sentence that holds all these words."""
    with pytest.raises(BundleError) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["codec", "prior", "table"])
def test_a_missing_file_is_named(folder, kind):
    file = next(folder.glob(f"{kind}*.safetensors"))
    file.unlink()
    refused(folder, file.name, "is missing", "Restore it")


@pytest.mark.parametrize("kind", ["codec", "prior", "table"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_corrupt_file_is_named(folder, kind, damage):
    file = next(folder.glob(f"{kind}*.safetensors"))
    whole = bytearray(file.read_bytes())
    if damage == "flipped":
        whole[-5] ^= 4
    changed = {"truncated": whole[:-7], "empty": b"", "foreign": b"\x80\x04pickle" * 50}
    file.write_bytes(changed.get(damage, whole))
    refused(folder, str(file), "damaged or was swapped", "Restore it")


@pytest.mark.parametrize("kind", ["codec", "prior", "table"])
def test_a_corrupt_file_is_named_without_a_checksum_too(folder, kind):
    edit(folder, lambda card: [e.pop("sha256") for e in entries_of(card)])
    file = next(folder.glob(f"{kind}*.safetensors"))
    file.write_bytes(file.read_bytes()[:-7])
    if kind == "codec":  # what else was made for it is compared with its checksum
        edit(folder, lambda card: card.update(priors={}, tables=[]))
    refused(folder, str(file), "estore it")


def entries_of(card: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for _, entry in entries(card)]


@pytest.mark.parametrize("kind", ["codec", "prior", "table"])
def test_the_size_of_a_cut_file_is_told(folder, kind):
    file = next(folder.glob(f"{kind}*.safetensors"))
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-7])
    refused(folder, file.name, f"{size - 7:,} bytes, expected {size:,}")


@pytest.mark.parametrize("kind", ["codec", "prior", "table"])
def test_any_flipped_bit_of_a_file_is_noticed(folder, kind):
    file = next(folder.glob(f"{kind}*.safetensors"))
    entry = next(one for name, one in entries(json_of(folder)) if name == file.name)
    whole = bytearray(file.read_bytes())
    for place in range(0, 8 * len(whole), max(1, len(whole) // 25)):
        whole[place // 8] ^= 1 << place % 8
        file.write_bytes(whole)
        assert not agrees(file, entry), place
        whole[place // 8] ^= 1 << place % 8
    file.write_bytes(whole)
    assert agrees(file, entry)


def json_of(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return card


def test_any_flipped_bit_of_the_card_is_noticed(folder):
    """Or it changes nothing that the card tells: a capital in an escape, a space."""
    whole = bytearray((folder / "bundle.json").read_bytes())
    told = json_of(folder)
    noticed = 0
    for place in range(8 * len(whole)):
        whole[place // 8] ^= 1 << place % 8
        try:
            card = json.loads(whole.decode())
            if card != told:
                check_card(folder, card)
                pytest.fail(f"bit {place} was not noticed: {whole[place // 8 - 20 :][:40]!r}")
        except (BundleError, ValueError, KeyError, TypeError, AttributeError):
            noticed += 1
        whole[place // 8] ^= 1 << place % 8
    assert noticed > 7.5 * len(whole)


def test_an_edited_card_is_refused_until_it_is_sealed(folder):
    edit(folder, lambda card: card.update(data="cubes"), sealed=False)
    refused(folder, "bundle.json is not as it was saved", "mlass_ppl.bundle.seal(", str(folder))
    assert load(seal(folder)).card["data"] == "cubes"
    edit(folder, lambda card: card.pop("sha256"), sealed=False)
    refused(folder, "bundle.json is not as it was saved")


def test_a_file_of_another_bundle_is_refused(folder, tmp_path):
    other = Bundle("other", make_codec(), {"blob": make_gpt2(seed=3)}).save(tmp_path / "other")
    shutil.copy(other / "prior-blob.safetensors", folder)
    refused(folder, "prior-blob.safetensors", "was swapped", "Restore it")


def unhashed(folder: Path) -> None:
    """The card as it was before cards had sizes and a checksum."""

    def change(card):
        del card["sha256"]
        for entry in entries_of(card):
            del entry["bytes"]

    edit(folder, change, sealed=False)


def test_a_bundle_of_an_earlier_version_loads_and_can_be_sealed(bundle, folder, tmp_path):
    new = (folder / "bundle.json").read_bytes()
    unhashed(folder)
    assert load(folder).counts == bundle.counts
    again = load(folder).save(tmp_path / "again")
    assert sorted(json_of(again)) == sorted(json.loads(new))
    seal(folder)
    assert json_of(folder) == json.loads(new)
    for file in folder.glob("*.safetensors"):
        assert load(folder).counts == bundle.counts
        file.write_bytes(file.read_bytes()[:-1])
        refused(folder, file.name)
        break


def test_what_is_damaged_is_not_sealed(folder):
    unhashed(folder)
    file = table_file(folder)
    file.write_bytes(file.read_bytes()[:-7])
    before = (folder / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match="was swapped"):
        seal(folder)
    assert (folder / "bundle.json").read_bytes() == before
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be sealed"):
        seal(folder)


def test_swapped_tables_are_noticed(bundle, folder):
    one, other = table_file(folder, 0), table_file(folder, 1)
    content = one.read_bytes(), other.read_bytes()
    one.write_bytes(content[1])
    other.write_bytes(content[0])
    refused(folder, "was swapped", ".safetensors")


def test_another_codec_is_noticed(folder, tmp_path):
    """A whole codec of the same sizes, with its own checksum: priors and tables are for the old."""
    other = Bundle("other", make_codec(seed=5), {}).save(tmp_path / "other")
    shutil.copy(other / "codec.safetensors", folder)
    refused(folder, "codec.safetensors", "was swapped")
    checksum = json.loads((other / "bundle.json").read_text())["codec"]["sha256"]
    edit(folder, lambda card: card["codec"].update(sha256=checksum))
    refused(folder, "prior 'blob'", str(folder), "another codec", "mlass train")
    edit(folder, lambda card: card.update(priors={}))
    refused(folder, "table p(0.5 blob#1", "another codec", "mlass train")
    edit(folder, lambda card: card.update(tables=[]))
    load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"card"', "{}", '{"format": "new"}'])
def test_a_damaged_card_is_named(folder, text):
    (folder / "bundle.json").write_text(text)
    refused(folder, str(folder / "bundle.json"), "is damaged", "Restore the folder")


def test_a_card_that_is_no_text_is_named(folder):
    (folder / "bundle.json").write_bytes(b"\xff\xfe\x00{")
    refused(folder, str(folder / "bundle.json"), "is damaged")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no codec": lambda card: card.pop("codec"),
    "no priors": lambda card: card.pop("priors"),
    "priors as a list": lambda card: card.update(priors=[1]),
    "a size of text": lambda card: card["codec"].update(alphabet="many"),
    "an impossible size": lambda card: card["codec"].update(size=13),
    "an impossible width": lambda card: card["priors"]["blob"].update(width=15),
    "a negative width": lambda card: card["priors"]["blob"].update(width=-16),
    "a broken recipe": lambda card: card["tables"][0].update(recipe={"leaves": 3}),
    "a file that is no name": lambda card: card["tables"][0].update(file=7),
    "impossible smoothing": lambda card: card.update(smoothing={"alpha": -1}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_card_with_impossible_facts_is_named(folder, change):
    edit(folder, CHANGES[change])
    refused(folder, str(folder / "bundle.json"), "is damaged")


def test_a_newer_format_asks_for_an_upgrade(folder):
    edit(folder, lambda card: card.update(format=FORMAT + 1))
    refused(folder, f"format {FORMAT + 1}", f"up to {FORMAT}", "Upgrade", "bundle.json")


def test_unknown_kinds_are_named(folder):
    edit(folder, lambda card: card["priors"]["blob"].update(kind="rnn"))
    refused(folder, "unknown prior kind 'rnn'", "prior-blob.safetensors")
    edit(folder, lambda card: card["codec"].update(kind="wavelets"))
    refused(folder, "unknown codec kind 'wavelets'", "bundle.json")


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "a/../../secret"])
def test_a_card_cannot_reach_out_of_its_folder(folder, file):
    shutil.copy(table_file(folder), folder.parent / "secret.safetensors")
    edit(folder, lambda card: card["tables"][0].update(file=file))
    refused(folder, "outside its folder", file)
    edit(folder, lambda card: card["priors"]["blob"].update(file=file))
    refused(folder, "outside its folder", file)


@pytest.mark.parametrize("name", ["bundle.json", "codec.safetensors", "prior-blob.safetensors"])
def test_a_link_cannot_reach_out_of_the_folder(folder, name):
    outside = folder.parent / f"outside-{name}"
    (folder / name).rename(outside)
    try:
        (folder / name).symlink_to(outside)
    except OSError:
        pytest.skip("links cannot be made here")
    refused(folder, "outside its folder", name)


def test_a_folder_may_itself_be_a_link(bundle, folder, tmp_path):
    try:
        (tmp_path / "link").symlink_to(folder)
    except OSError:
        pytest.skip("links cannot be made here")
    assert load(tmp_path / "link").counts == bundle.counts


def test_weights_of_other_sizes_do_not_fit(folder):
    edit(folder, lambda card: card["codec"].update(encoder=24))
    refused(folder, str(folder / "codec.safetensors"), "does not fit the sizes in its card")


def test_weights_must_be_all_there_and_finite(folder):
    file, codec = folder / "codec.safetensors", make_codec()
    state = load_file(file)
    save_file({key: value for key, value in state.items() if key != "decoder.0.bias"}, file)
    with pytest.raises(BundleError, match=r"codec\.safetensors .*missing \['decoder\.0\.bias'\]"):
        load_weights(codec, file)
    save_file({**state, "stowaway": torch.zeros(2)}, file)
    with pytest.raises(BundleError, match=r"unexpected \['stowaway'\]"):
        load_weights(codec, file)
    state["decoder.0.bias"][0] = float("nan")
    save_file(state, file)
    with pytest.raises(BundleError, match=r"codec\.safetensors holds NaN .*'decoder\.0\.bias'"):
        load_weights(codec, file)


def test_a_table_of_another_shape_is_refused_when_it_is_used(folder):
    save_counts(Counts.from_dense(torch.ones(7, 7, 7)), table_file(folder))
    edit(folder, lambda card: [entry.pop("sha256") for entry in card["tables"]])
    bundle = load(folder)
    for program in (joint(2), star(2)):
        graph = compile_program(program)
        recipe = bundle.recipe(graph, graph.factors[0])
        if table_file(folder).name == f"table-{recipe.slug}.safetensors":
            with pytest.raises(TableError, match="was counted for alphabets"):
                bundle.tables(graph, graph.factors)
            return
    pytest.fail("the first table is of neither shape")


# --- the shipped bundles -------------------------------------------------------------------------


SHIPPED = [path for path in list_bundles() if path.parent.name in ("models", "_models")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_agrees_with_its_entry(path):
    card = json_of(path)
    check_card(path, card)
    listed = dict(entries(card))
    assert sorted(listed) == sorted(file.name for file in path.glob("*.safetensors"))
    assert not [name for name, entry in listed.items() if not agrees(path / name, entry)]
    if path.name == "mnist":
        assert all(entry["bytes"] > 0 for entry in listed.values())
        assert card["sha256"] == card_digest(card)
