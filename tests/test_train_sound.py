"""The recipes of bundles of sound on tones: in order, once, on from where they stopped, counted
block by block; and the windows that they draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mlass_ppl import additive, chain, load, separate
from mlass_ppl.cli import app
from mlass_ppl.codecs import AudioVQConfig
from mlass_ppl.data.audio import fsdd, slakh
from mlass_ppl.declare import compile_program
from mlass_ppl.errors import DataError, OptionError, PriorError
from mlass_ppl.evidence import Feature
from mlass_ppl.infer import BP
from mlass_ppl.search import SMC
from mlass_ppl.train import band, sound_counting, spoken, train_prior
from mlass_ppl.train.band import band_pools, make_band
from mlass_ppl.train.prior import nats_of
from mlass_ppl.train.sound import Pool, level_of, song_gains
from mlass_ppl.train.sound_counting import count_blocks, count_sound_into
from mlass_ppl.train.sound_sizes import SoundSizes
from mlass_ppl.train.spoken import make_spoken, spoken_pools
from mlass_ppl.train.variants import at_level, variant_pools

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")

RATE, SAMPLES = 8_000, 2_560
CODEC = AudioVQConfig(
    samples=SAMPLES, sample_rate=RATE, hop=64, alphabet=12, latent=16, features=6, width=4, blocks=1
)
TINY = SoundSizes(
    stem=CODEC, mixture=replace(CODEC, alphabet=16), segment=SAMPLES, segments=8, mixed=8,
    fitted=8, codec_batch=4, width=8, layers=1, heads=2, windows=8, more=4, varied=12,
    prior_batch=4, signals=200, mixtures=150, sources=(3,), min_std=0.005,
)  # fmt: skip
SPEAKERS = ("ann", "bob")
STEPS = (
    "codec of mixtures", "codec of ann", "codec of bob", "prior of ann", "prior of bob",
    "tables of additive(ann, bob)",
)  # fmt: skip


def tone(seed: int, pitch: float, seconds: float) -> np.ndarray:
    """A tone of some pitch with a little noise, RMS about 0.1."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * pitch * random.uniform(0.9, 1.1) * time + random.uniform(0, 6))
    return 0.14 * wave + 0.01 * random.standard_normal(len(time))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ann speaks low and Bob high and soft, in recordings of a quarter of a second."""
    folder = tmp_path_factory.mktemp("fsdd") / "recordings"
    folder.mkdir()
    for place, (speaker, pitch) in enumerate((("ann", 150), ("bob", 900))):
        for index in range(14):
            wave = tone(100 * place + index, pitch, 0.2 + 0.01 * (index % 5))
            soundfile.write(folder / f"3_{speaker}_{index}.wav", wave / (1 + 3 * place), RATE)
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs of three stems in Slakh's layout; no validation split."""
    root = tmp_path_factory.mktemp("slakh")
    for number in range(3):
        folder = root / "train" / f"Track{number:05d}"
        (folder / "stems").mkdir(parents=True)
        facts = {}
        for place, (name, pitch) in enumerate((("Bass", 80), ("Drums", 2_000), ("Piano", 500))):
            wave = tone(10 * number + place, pitch, 3.0) / (1 + number)
            soundfile.write(folder / "stems" / f"S{place:02d}.flac", wave, RATE)
            facts[f"S{place:02d}"] = {"inst_class": name, "audio_rendered": True}
        (folder / "metadata.yaml").write_text(yaml.safe_dump({"stems": facts, "UUID": str(number)}))
    return root


def make(folder: Path, recordings: Path, **options: Any) -> list[tuple[str, bool]]:
    """The steps, and whether each was done before."""
    told: list[tuple[str, bool]] = []
    options = {"sizes": TINY, "run": folder / "run", "device": "cpu"} | options
    options["speakers"] = SPEAKERS
    make_spoken(folder / "b", recordings, told=lambda *step: told.append(step), **options)
    return told


def weights(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "b").glob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert make(folder, recordings) == [(step, False) for step in STEPS]
    return folder


# --- windows -------------------------------------------------------------------------------------


def test_a_window_lies_in_its_song_at_the_songs_gain(songs):
    tracks = slakh(songs)
    gains = {track.name: 2.0 for track in tracks}
    drawn = Pool(tracks, RATE, gains).draw("bass", 20, SAMPLES, 0)
    assert drawn.shape == (20, 1, SAMPLES)
    whole = [2 * track.read("bass") for track in tracks]
    for window in drawn[:, 0]:
        found = [song.unfold(0, SAMPLES, 1).sub(window).abs().amax(1).min() for song in whole]
        assert min(found) < 1e-6


def test_fewer_windows_are_the_first_of_them_and_each_stem_has_draws_of_its_own(songs):
    pool = Pool(slakh(songs), RATE)
    many = pool.draw("bass", 70, 640, (1, 2), changed=0.5)
    assert torch.equal(pool.draw("bass", 9, 640, (1, 2), changed=0.5), many[:9])
    assert not torch.equal(pool.draw("bass", 9, 640, (1, 3), changed=0.5), many[:9])
    halves = pool.draw("bass", 70, 640, (1, 2), changed=0.5, make=lambda x: x[:, 0].half())
    assert torch.equal(halves, many[:, 0].half())


def test_changed_windows_are_other_pitches_and_levels(songs):
    pool = Pool(slakh(songs), RATE)

    def pitches(changed: float) -> torch.Tensor:
        windows = pool.draw("piano", 40, SAMPLES, 0, changed=changed)[:, 0]
        return torch.fft.rfft(windows).abs().argmax(1) * RATE / SAMPLES

    plain, changed = pitches(0.0), pitches(1.0)
    assert plain.min() >= 440
    assert plain.max() <= 560
    assert changed.min() < 0.9 * plain.max()
    assert changed.std() > 1.5 * plain.std()


def test_whole_recordings_begin_at_once_and_silence_follows(recordings):
    pool = Pool(fsdd(recordings).split("train"), RATE, whole=True)
    drawn = pool.draw("ann", 30, SAMPLES, 0)[:, 0]
    assert (drawn[:, :64].abs().amax(1) > 0).all()
    assert (drawn[:, -300:] == 0).all()
    late = pool.draw("ann", 30, SAMPLES, 0, changed=1.0)[:, 0]
    begun = (late[:, :64].abs().amax(1) > 0).float().mean()
    assert 0.3 < begun < 0.8


def test_silent_stems_and_impossible_numbers_are_refused(tmp_path):
    soundfile.write(tmp_path / "3_ann_12.wav", np.zeros(20_000), RATE)
    pool = Pool(fsdd(tmp_path), RATE)
    with pytest.raises(DataError, match="'ann' hardly sounds"):
        pool.draw("ann", 1, 640, 0)
    with pytest.raises(DataError, match="no track has the stems bob"):
        pool.draw("bob", 1, 640, 0)
    with pytest.raises(OptionError, match="changed in"):
        pool.draw("ann", 1, 640, 0, changed=2.0)


def test_songs_are_brought_to_one_level_and_measured_once(songs, tmp_path, monkeypatch):
    file = tmp_path / "run" / "gains.jsonl"
    tracks = slakh(songs)
    gains = song_gains(tracks, file)
    for track in tracks:
        mix = torch.stack([track.read(stem) for stem in track.stems]).sum(0)
        assert float((gains[track.name] * mix).square().mean().sqrt()) == pytest.approx(0.1, 0.05)
    file.write_text(file.read_text() + '{"track": "cut o')
    monkeypatch.setattr("mlass_ppl.train.sound._gain", lambda *_: pytest.fail("measured again"))
    assert song_gains(tracks, file) == gains


# --- the recipe ----------------------------------------------------------------------------------


def test_every_step_is_done_once_and_what_is_made_separates(whole, recordings):
    before = weights(whole)
    assert make(whole, recordings) == [(step, True) for step in STEPS]
    assert weights(whole) == before
    bundle = load(whole / "b")
    assert set(bundle.codecs) == set(bundle.priors) == set(SPEAKERS)
    held = spoken_pools(recordings)[1]
    truths = torch.stack([held.draw(name, 6, SAMPLES, 0)[:, 0] for name in SPEAKERS], 1)
    found = separate(truths.mean(1)[:, None], additive(SPEAKERS), bundle, search=SMC(4))
    mine = torch.stack([found[name][:, 0] for name in SPEAKERS], 1)
    # Bob's tones are too high for sixteen codes to give them back by the sample.
    errors = [(x - truths)[:, 0].square().sum() for x in (mine, truths.mean(1, keepdim=True))]
    assert errors[0] < 0.8 * errors[1]


def test_the_card_tells_how_everything_was_made(whole, recordings):
    card = json.loads((whole / "b" / "bundle.json").read_text())
    pool, held = spoken_pools(recordings)
    for name in SPEAKERS:  # Bob's recordings are softer by 12 dB, and brought to Ann's level
        assert 0.03 < card["levels"][name] < 0.06
        assert card["levels"][name] == pytest.approx(
            level_of(pool.draw(name, 100, SAMPLES, 0)), abs=1e-5
        )
        assert card["codecs"][name]["segments"] == 8
        assert card["codecs"][name]["seed"] == 0
        assert card["codecs"][name]["sdr_db"] > 1
        assert 0 < card["codecs"][name]["logmel_l1"] < 3
        assert card["priors"][name]["windows"] == 8
        assert card["priors"][name]["more"] == 4
    assert card["codec"]["alphabet"] == 16
    assert [entry["signals"] for entry in card["tables"]] == [200, 200]
    readme = (whole / "b" / "README.md").read_text()
    assert "CC BY-SA 4.0" in readme
    assert "mlass train spoken" in readme
    prior, codec = load(whole / "b").priors["ann"], load(whole / "b").codecs["ann"]
    tokens = codec.encode(held.draw("ann", 160, SAMPLES, (0, 5)))
    logs = prior(tokens).gather(2, tokens[..., None])
    assert -float(logs.mean()) == pytest.approx(card["priors"]["ann"]["validation_nats"], abs=1e-3)


def test_an_interrupted_recipe_goes_on_to_the_same_bundle(whole, recordings, tmp_path, monkeypatch):
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlass_ppl.train.sound_recipe.make_stem_prior", stopped)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, recordings)
    done = [before for _, before in make(tmp_path, recordings)]
    assert done == [True] * 3 + [False] * 3
    assert weights(tmp_path) == weights(whole)


def test_another_recipe_does_not_go_on_in_a_bundle(whole, recordings, tmp_path):
    with pytest.raises(OptionError, match="codec of ann made with segments 8 instead of 9"):
        make(whole, recordings, sizes=replace(TINY, segments=9), run=tmp_path)
    with pytest.raises(OptionError, match="seed 0 instead of 1"):
        make(whole, recordings, seed=1, run=tmp_path)


def test_a_band_is_made_of_songs_with_tables_of_three(songs, tmp_path):
    stems = ("bass", "drums", "piano")
    options: dict[str, Any] = {"stems": stems, "sizes": TINY, "device": "cpu"}
    bundle = make_band(tmp_path / "b", songs, run=tmp_path / "run", **options)
    graph = compile_program(chain(stems, evidence=Feature(linear=True)))
    assert not bundle.lacking(graph, graph.factors)
    assert not bundle.lacking(compile_program(additive(stems)), ())
    assert len(bundle.counts) == 5  # cells of three stems and of a partial mixture, and its table
    assert "2 songs" in bundle.card["recipe"]["data"]  # the third validates
    assert not list((tmp_path / "run" / "tables").glob("*"))
    with pytest.raises(DataError, match="no track has the stems guitar"):
        make_band(tmp_path / "c", songs, stems=("bass", "guitar"), run=tmp_path / "run")
    with pytest.raises(OptionError, match="--data-root"):
        make_band(tmp_path / "c", None)
    with pytest.raises(OptionError, match="two or more different stems"):
        make_band(tmp_path / "c", songs, stems=("bass",))


# --- variants of songs ---------------------------------------------------------------------------


def render(path: Path, stems: dict[str, float], seed: int = 0, **facts: str) -> None:
    """A song of three seconds in Slakh's layout: a tone for each stem."""
    (path / "stems").mkdir(parents=True)
    told = {}
    for place, (name, pitch) in enumerate(stems.items()):
        soundfile.write(path / "stems" / f"S{place:02d}.flac", tone(seed + place, pitch, 3), RATE)
        told[f"S{place:02d}"] = {"inst_class": name, "audio_rendered": True}
    (path / "metadata.yaml").write_text(yaml.safe_dump({"stems": told, **facts}))


TRIO = {"Bass": 90, "Drums": 1_500, "Piano": 600}


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Variants of the three songs, of which the last validates, and one on pianos alone."""
    root = tmp_path_factory.mktemp("variants")
    for number in range(3):
        render(root / "all" / "train" / f"Track{number:05d}~1", TRIO, 50 + number)
    render(root / "pianos" / "train" / "Track00000~piano1", {"Piano": 700}, 70)
    return [root / "all", root / "pianos"]


def test_variants_of_songs_that_are_held_out_are_not_trained_on(tmp_path):
    for name, split, composer in (
        ("a", "train", "Ann"), ("b", "validation", "Bob"), ("c", "test", "Cy"), ("d", "train", "Di")
    ):  # fmt: skip
        render(tmp_path / "songs" / split / name, TRIO, composer=composer)
    for name, split, composer in (
        ("a~1", "train", "Ann"), ("b~1", "train", "Bob"), ("c~1", "train", "Cy"),
        ("d~1", "test", "Di"), ("e~1", "train", "Ann"), ("f~1", "train", "Bob"),
        ("g~1", "train", "Cy"), ("h~1", "train", "Eve"), ("i~1", "validation", "Fay"),
    ):  # fmt: skip
        render(tmp_path / "more" / split / name, TRIO, composer=composer)
    songs, folder = slakh(tmp_path / "songs"), tmp_path / "more"
    parts = [songs.split(split) for split in ("train", "validation")]
    train, held = variant_pools([folder], songs, *parts, RATE, tmp_path / "run")
    assert [track.name for track in train.tracks] == [f"{folder}/{n}~1" for n in "aeh"]
    assert [track.name for track in held.tracks] == [f"{folder}/{n}~1" for n in "bi"]
    render(tmp_path / "rest" / "train" / "c~2", TRIO, composer="Cy")
    with pytest.raises(DataError, match=r"none of the 1 variants in .* is of a song that is train"):
        variant_pools([tmp_path / "rest"], songs, *parts, RATE, tmp_path / "run")


def test_a_third_pass_over_variants_comes_to_a_finished_bundle(songs, variants, tmp_path):
    stems = ("bass", "piano")
    told: list[tuple[str, bool]] = []
    options: dict[str, Any] = {"stems": stems, "sizes": replace(TINY, sources=()), "device": "cpu"}
    options |= {"run": tmp_path / "run", "told": lambda *step: told.append(step)}
    plain = make_band(tmp_path / "b", songs, **options)
    before = weights(tmp_path)
    with pytest.raises(DataError, match=r"have piano and lack bass\. Give more --variants"):
        make_band(tmp_path / "b", songs, variants=variants[1:], **options)
    told.clear()
    bundle = make_band(tmp_path / "b", songs, variants=variants, **options)
    assert [step for step, before in told if not before] == [
        f"prior of {stem}, on variants" for stem in stems
    ]
    after = weights(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {
        f"prior-{stem}.safetensors" for stem in stems
    }
    held = band_pools(songs, RATE, tmp_path / "run")[1]
    for stem in stems:
        facts, earlier = bundle.card["priors"][stem], plain.card["priors"][stem]
        assert (facts["varied"], facts["variants"]) == (12, 3)  # the third validates
        assert facts["nats_by_pass"][:2] == earlier["nats_by_pass"]
        assert len(facts["nats_by_pass"]) == 3
        prior, codec = bundle.priors[stem], bundle.codecs[stem]
        tokens = codec.encode(held.draw(stem, 160, SAMPLES, (0, 5)))
        assert nats_of(prior, tokens) == pytest.approx(facts["validation_nats"], abs=1e-3)
        assert len(facts["variants_nats"]) == 2
        assert facts["variants_nats"][0] != facts["variants_nats"][1]
    readme = (tmp_path / "b" / "README.md").read_text()
    assert "--data-root DIR --variants DIR --variants DIR --stems" in readme
    assert "| 8 + 4 + 12 |" in readme
    assert "Variants: 3 of songs that are trained on (0.0 h), 1 of validation songs." in readme
    for again in (variants, ()):  # nothing is made again, with or without them
        told.clear()
        make_band(tmp_path / "b", songs, variants=again, **options)
        assert all(before for _, before in told)
    assert weights(tmp_path) == after
    with pytest.raises(OptionError, match="on variants made with varied 12 instead of 13"):
        make_band(
            tmp_path / "b", songs, variants=variants,
            **options | {"sizes": replace(TINY, sources=(), varied=13)},
        )  # fmt: skip


def test_songs_of_one_stem_are_brought_to_its_level(songs, variants, tmp_path):
    """A trio's mix is at 0.1, so that a piano alone would be as loud as all three."""
    found = slakh(songs)
    train, _ = variant_pools(variants, found, found, replace(found, tracks=()), RATE, tmp_path)
    levelled = at_level(train, "piano", 0.04)
    level = {
        track.name[-7:]: float(levelled.gains[track.name] * track.read("piano").std())
        for track in train.tracks
    }
    assert level["~piano1"] == pytest.approx(0.04, rel=0.05)
    assert level["00000~1"] == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert at_level(train, "bass", 0.04).gains == train.gains


# --- counting ------------------------------------------------------------------------------------


def test_counting_goes_on_where_it_was_and_comes_to_the_same(
    whole, recordings, tmp_path, monkeypatch
):
    monkeypatch.setattr(sound_counting, "_BLOCK", 16)
    monkeypatch.setattr(sound_counting, "_SAVED", 2)
    bundle = replace(load(whole / "b"), counts={})
    graph = compile_program(chain(SPEAKERS))
    pool = spoken_pools(recordings)[0]
    options: dict[str, Any] = {"mixtures": 100, "seed": 3, "changed": 0.5}
    once = count_blocks(bundle, graph, graph.factors, pool, tmp_path / "once", **options)

    def stop(done: int, total: int) -> None:
        assert total == 100
        if done >= 80:
            raise KeyboardInterrupt

    drawn = []
    draw = Pool.draw
    with pytest.raises(KeyboardInterrupt):
        count_blocks(
            bundle, graph, graph.factors, pool, tmp_path / "twice", progress=stop, **options
        )
    monkeypatch.setattr(
        Pool, "draw", lambda self, stem, rows, *a, **k: drawn.append(rows) or draw(
            self, stem, rows, *a, **k
        )
    )  # fmt: skip
    twice = count_blocks(bundle, graph, graph.factors, pool, tmp_path / "twice", **options)
    assert twice.counts == once.counts
    assert sum(drawn) == 2 * (100 - 64)  # only what was not done, of two speakers
    (counts,) = once.counts.values()
    assert counts.values.sum() == 100 * SAMPLES // 64
    assert not list((tmp_path / "twice").glob("*"))


def test_another_count_does_not_go_on_from_this_one(whole, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(sound_counting, "_SAVED", 1)
    bundle = replace(load(whole / "b"), counts={})
    graph = compile_program(chain(SPEAKERS))
    pool = spoken_pools(recordings)[0]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_blocks(
            bundle, graph, graph.factors, pool, tmp_path, mixtures=200, seed=0, progress=stop
        )
    assert list(tmp_path.glob("1-table-*"))
    other = count_blocks(bundle, graph, graph.factors, pool, tmp_path, mixtures=200, seed=1)
    anew = count_blocks(bundle, graph, graph.factors, pool, tmp_path / "x", mixtures=200, seed=1)
    assert other.counts == anew.counts


def test_the_command_counts_for_a_bundle_of_sound(whole, recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = load(whole / "b").save(tmp_path / "b")
    line = [
        "count", "--bundle", str(folder), "--program", "chain", "--mixtures", "30", "--data-root",
        str(recordings), "--run", str(tmp_path / "run"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "1,200 tuples" in result.output
    graph = compile_program(chain(SPEAKERS))
    assert not load(folder).lacking(graph, graph.factors)
    again = count_sound_into(folder, graph, BP(), recordings, tmp_path, mixtures=30)
    assert len(again) == 1
    assert again[0].startswith("already counted")


# --- the commands --------------------------------------------------------------------------------


def test_quick_makes_a_whole_bundle_of_each_kind(songs, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(spoken, "SPEAKERS", SPEAKERS)
    small = replace(
        band.QUICK, stem=replace(band.QUICK.stem, sample_rate=RATE, samples=SAMPLES),
        mixture=replace(band.QUICK.mixture, sample_rate=RATE, samples=SAMPLES), segment=SAMPLES,
    )  # fmt: skip
    monkeypatch.setattr(band, "QUICK", small)
    for line in (
        ["spoken", "--data-root", recordings],
        ["band", "--data-root", songs, "--stems", "bass", "drums", "piano"],
    ):
        name = str(line[0])
        out = ["--out", tmp_path / name, "--run", tmp_path / "run" / name]
        command = ["train", *map(str, (*line, "--quick", "--device", "cpu", *out))]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert "tables of additive" in result.output
        again = CliRunner().invoke(app, command)
        assert "codec of mixtures: was there" in again.output
        assert load(tmp_path / name).priors
    result = CliRunner().invoke(app, ["train", "band", "--out", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert "--data-root" in result.output


# --- a prior goes on -----------------------------------------------------------------------------


def test_a_prior_goes_on_from_another_and_leaves_it_alone(tmp_path):
    tokens = (torch.arange(8)[:, None] + torch.arange(6)) % 5
    options: dict[str, Any] = {"batch_size": 4, "device": "cpu", "width": 8, "layers": 1}
    options |= {"heads": 2, "rate": 1e-2}
    first = train_prior(tokens, tokens, 5, epochs=1, run=tmp_path / "a", **options)
    before = {key: value.clone() for key, value in first.state_dict().items()}
    slow = options | {"rate": 1e-6}
    on = train_prior(tokens, tokens, 5, epochs=1, run=tmp_path / "b", start=first, **slow)
    for key, value in on.state_dict().items():
        assert torch.allclose(value, before[key], atol=1e-4)
        assert torch.equal(first.state_dict()[key], before[key])
    with pytest.raises(PriorError, match="knows 5 tokens"):
        train_prior(tokens, tokens, 6, epochs=1, run=tmp_path / "c", start=first, **options)
    with pytest.raises(OptionError, match="start was"):
        train_prior(tokens, tokens, 5, epochs=2, run=tmp_path / "b", start=on, **slow)


def test_the_validation_songs_are_their_own_where_there_is_such_a_split(songs, tmp_path):
    train, held = band_pools(songs, RATE, tmp_path)
    assert len(train.tracks) == 2
    assert len(held.tracks) == 1
    assert {track.name for track in train.tracks}.isdisjoint(track.name for track in held.tracks)
