"""Hugging Face codecs, small and with random weights: the models' own `encode` and `decode` are
the oracle, their files are really written and read."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlass_ppl.codecs import huggingface
from mlass_ppl.codecs.audio_base import AudioCodec
from mlass_ppl.codecs.huggingface import HuggingFaceCodec
from mlass_ppl.declare import compile_program
from mlass_ppl.errors import BundleError, CodecError, OptionError, SignalError
from mlass_ppl.shapes import joint
from mlass_ppl.tables import count
from mlass_ppl.testing import check_codec

HOPS = {"encodec": 8, "dac": 8, "mimi": 16}
LEVELS = 3


def encodec(**changes: Any) -> nn.Module:
    from transformers import EncodecConfig, EncodecModel

    config: dict[str, Any] = {
        "sampling_rate": 800, "upsampling_ratios": [4, 2], "num_filters": 4, "hidden_size": 8,
        "codebook_size": 16, "target_bandwidths": [0.4, 0.8, 1.2],
    }  # fmt: skip
    return EncodecModel(EncodecConfig(**config | changes))


def dac(**changes: Any) -> nn.Module:
    from transformers import DacConfig, DacModel

    config: dict[str, Any] = {
        "sampling_rate": 800, "downsampling_ratios": [2, 4], "encoder_hidden_size": 4,
        "decoder_hidden_size": 16, "codebook_size": 16, "codebook_dim": 4, "n_codebooks": LEVELS,
    }  # fmt: skip
    return DacModel(DacConfig(**config | changes))


def mimi(**changes: Any) -> nn.Module:
    from transformers import MimiConfig, MimiModel

    config: dict[str, Any] = {
        "sampling_rate": 800, "upsampling_ratios": [4, 2], "num_filters": 4, "hidden_size": 8,
        "codebook_size": 16, "codebook_dim": 4, "vector_quantization_hidden_dimension": 4,
        "num_quantizers": LEVELS, "upsample_groups": 8, "num_hidden_layers": 1,
        "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2,
        "sliding_window": 4,
    }  # fmt: skip
    return MimiModel(MimiConfig(**config | changes))


MODELS: dict[str, Callable[..., Any]] = {"encodec": encodec, "dac": dac, "mimi": mimi}


def noise(rows: int, samples: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(seed))


def make_model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A model whose codes spread as its latents do; EnCodec's and Mimi's are zero to begin with."""
    torch.manual_seed(seed)
    model = MODELS[kind](**changes).eval().requires_grad_(False)
    for module in model.modules():
        for name in ("embed", "embed_sum"):
            if isinstance(module._buffers.get(name), Tensor):
                module._buffers[name].normal_(std=0.1)
    return model


def make_codec(kind: str, tokens: int = 5, codebook: int = 0, **changes: Any) -> HuggingFaceCodec:
    return HuggingFaceCodec(
        make_model(kind, **changes), samples=tokens * HOPS[kind], codebook=codebook
    )


def own_tokens(kind: str, model: Any, signals: Tensor) -> Tensor:
    """int64 [B, levels, T], by what transformers documents."""
    if kind == "encodec":
        bandwidth = model.config.target_bandwidths[-1]
        found: Tensor = model.encode(signals, bandwidth=bandwidth).audio_codes[0]
    else:
        found = model.encode(signals).audio_codes
    return found


def own_signals(kind: str, model: Any, tokens: Tensor) -> Tensor:
    """float [B, 1, samples] of tokens [B, levels, T], by what transformers documents."""
    if kind == "encodec":
        found = model.decode(tokens[None], [None])
    else:
        found = model.decode(audio_codes=tokens)
    return found.audio_values.reshape(len(tokens), 1, -1)


every_kind = pytest.mark.parametrize("kind", MODELS)


@every_kind
@pytest.mark.parametrize("codebook", range(LEVELS))
def test_it_is_a_codec_of_audio(kind: str, codebook: int) -> None:
    codec = make_codec(kind, codebook=codebook)
    check_codec(codec, noise(6, 5 * HOPS[kind]))
    assert isinstance(codec, AudioCodec)
    assert (codec.sample_rate, codec.hop, codec.alphabet) == (800, HOPS[kind], 16)
    assert (codec.signal_shape, codec.token_shape) == ((1, 5 * HOPS[kind]), (5,))


@every_kind
def test_tokens_of_each_level_are_the_models_own(kind: str) -> None:
    model, signals = make_model(kind), noise(20, 5 * HOPS[kind])
    wanted = own_tokens(kind, model, signals)
    assert wanted.shape == (20, LEVELS, 5)
    for level in range(LEVELS):
        codec = HuggingFaceCodec(model, samples=5 * HOPS[kind], codebook=level)
        assert torch.equal(codec.encode(signals), wanted[:, level])
        assert len(wanted[:, level].unique()) > 3  # no level says the same of everything


@every_kind
def test_latents_of_all_levels_add_up_to_what_the_model_decodes(kind: str) -> None:
    model = make_model(kind)
    codecs = [HuggingFaceCodec(model, samples=80, codebook=level) for level in range(LEVELS)]
    tokens = torch.randint(16, (4, LEVELS, codecs[0].token_shape[0]))
    latents = [codec.embed(tokens[:, level]) for level, codec in enumerate(codecs)]
    together = codecs[0].decode_latents(torch.stack(latents).sum(0))
    torch.testing.assert_close(together, own_signals(kind, model, tokens))
    first = own_signals(kind, model, tokens[:, :1])
    torch.testing.assert_close(codecs[0].decode(tokens[:, 0]), first)


@every_kind
@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 50])
def test_a_signal_of_any_length_has_a_token_for_each_hop(kind: str, tokens: int) -> None:
    samples = tokens * HOPS[kind]
    first = make_codec(kind)
    codec = first.lasting(samples)
    assert codec.model is first.model
    assert (codec.signal_shape, codec.token_shape) == ((1, samples), (tokens,))
    found = codec.encode(noise(2, samples))
    assert found.shape == (2, tokens)
    assert codec.decode(found).shape == (2, 1, samples)


@pytest.mark.parametrize(
    ("kind", "changes", "hop"),
    [
        ("encodec", {"use_causal_conv": False, "upsampling_ratios": [5, 2]}, 10),
        ("dac", {"hop_length": 512}, 8),  # as the published configuration at 24 kHz has it
        ("dac", {"downsampling_ratios": [5, 3]}, 15),
        ("mimi", {"frame_rate": 50.0}, 16),
        ("mimi", {"frame_rate": 25.0}, 32),
        ("mimi", {"num_semantic_quantizers": 2}, 16),
    ],
)
def test_the_hop_is_that_of_the_layers(kind: str, changes: dict[str, Any], hop: int) -> None:
    model = make_model(kind, **changes)
    codec, signals = HuggingFaceCodec(model, samples=4 * hop), noise(3, 4 * hop)
    assert codec.hop == hop
    check_codec(codec, signals)
    for level in range(codec._parts.levels):
        tokens = HuggingFaceCodec(model, samples=4 * hop, codebook=level).encode(signals)
        assert torch.equal(tokens, own_tokens(kind, model, signals)[:, level])


def test_lasting_keeps_the_level() -> None:
    codec, signals = make_codec("dac", codebook=2), noise(3, 40)
    assert torch.equal(codec.lasting(80).lasting(40).encode(signals), codec.encode(signals))


def test_silence_follows_where_a_decoder_ends_early() -> None:
    model = make_model("dac", downsampling_ratios=[2, 5])
    codec = HuggingFaceCodec(model, samples=60)
    tokens = torch.randint(16, (3, 6))
    own = own_signals("dac", model, tokens[:, None])
    assert own.shape[-1] == 58
    signals = codec.decode(tokens)
    torch.testing.assert_close(signals[..., :58], own)
    assert not signals[..., 58:].any()
    assert signals[..., 57].all()


@every_kind
def test_no_row_depends_on_the_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, signals = make_codec(kind), noise(7, 5 * HOPS[kind])
    tokens, decoded = codec.encode(signals), codec.decode(codec.encode(signals))
    others = torch.cat([1_000 * noise(2, 5 * HOPS[kind], 1), 0 * signals[:1]])
    assert torch.equal(codec.encode(torch.cat([signals[:3], others]))[:3], tokens[:3])
    monkeypatch.setattr(huggingface, "_AT_ONCE", 2 * 5 * HOPS[kind])  # two rows at once
    assert torch.equal(codec.encode(signals), tokens)
    torch.testing.assert_close(codec.decode(tokens), decoded)
    assert codec.encode(signals[:0]).shape == (0, 5)
    assert codec.decode(tokens[:0]).shape == (0, *codec.signal_shape)


@every_kind
def test_decoding_is_differentiable(kind: str) -> None:
    codec = make_codec(kind, tokens=2)
    codec.encode(noise(1, 2 * HOPS[kind]))  # what is kept of the codes must not stay behind
    codec.double()
    latents = codec.embed(codec.encode(noise(2, 2 * HOPS[kind]))).requires_grad_()
    assert latents.dtype == torch.float64
    assert torch.autograd.gradcheck(codec.decode_latents, latents, fast_mode=True)
    (gradient,) = torch.autograd.grad(codec.decode_latents(latents)[0].square().sum(), latents)
    assert gradient[0].any(0).all()
    assert not gradient[1].any()


def test_gradients_do_not_pass_through_cudnn() -> None:
    codec, seen = make_codec("encodec"), []
    codec.model.decoder.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    before = torch.backends.cudnn.enabled
    codec.decode_latents(codec.embed(torch.zeros(1, 5, dtype=torch.int64)))
    codec.decode(torch.zeros(1, 5, dtype=torch.int64))
    assert seen == [False, before]
    assert torch.backends.cudnn.enabled == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_kind
def test_it_runs_on_a_gpu(kind: str) -> None:
    codec, signals = make_codec(kind), noise(3, 5 * HOPS[kind])
    tokens, decoded = codec.encode(signals), codec.decode(codec.encode(signals))
    codec.cuda()
    assert (codec.encode(signals.cuda()).cpu() == tokens).double().mean() > 0.9
    torch.testing.assert_close(codec.decode(tokens.cuda()).cpu(), decoded, atol=1e-3, rtol=1e-3)
    latents = codec.embed(tokens.cuda()).requires_grad_()
    (gradient,) = torch.autograd.grad(codec.decode_latents(latents).square().sum(), latents)
    assert gradient.any()


@every_kind
def test_a_copy_is_whole(kind: str) -> None:
    codec, signals = make_codec(kind), noise(3, 5 * HOPS[kind])
    other, before = copy.deepcopy(codec), codec.encode(signals)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.zero_()
    assert torch.equal(codec.encode(signals), before)
    assert not torch.equal(other.encode(signals), before)


def test_a_table_is_counted_on_it() -> None:
    codec, signals = make_codec("dac"), noise(3, 40)
    (counts,) = count(joint(2), codec, signals, mixtures=400).values()
    assert int(counts.values.sum()) == 400 * 5
    graph = compile_program(joint(2))
    shares = list(graph.leaf_weights(graph.mixtures[0]).values())
    possible = set()
    for one in range(3):
        for other in range(3):
            mixture = shares[0] * signals[one] + shares[1] * signals[other]
            rows = codec.encode(torch.stack([signals[one], signals[other], mixture]))
            possible |= {tuple(row) for row in rows.T.tolist()}
    keys = torch.stack(torch.unravel_index(counts.keys, counts.shape), 1)
    assert {tuple(row) for row in keys.tolist()} == possible


# Files


@every_kind
def test_a_codec_returns_from_its_folder(kind: str, tmp_path: Path) -> None:
    model, signals = make_model(kind), noise(4, 5 * HOPS[kind])
    model.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        codec = HuggingFaceCodec.from_pretrained(folder, samples=5 * HOPS[kind], codebook=1)
        wanted = HuggingFaceCodec(model, samples=5 * HOPS[kind], codebook=1)
        tokens = wanted.encode(signals)
        assert torch.equal(codec.encode(signals), tokens)
        torch.testing.assert_close(codec.decode(tokens), wanted.decode(tokens))
    assert not codec.training
    assert not any(value.requires_grad for value in codec.parameters())


def test_weights_are_float32_however_they_were_saved(tmp_path: Path) -> None:
    make_model("dac").half().save_pretrained(tmp_path)
    codec = HuggingFaceCodec.from_pretrained(tmp_path, samples=40)
    assert {value.dtype for value in codec.parameters()} == {torch.float32}


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:7], COMMIT.upper()])
def test_a_name_on_the_hub_has_to_be_pinned(revision: str | None) -> None:
    with pytest.raises(OptionError, match="40 hexadecimal digits of a commit, got"):
        HuggingFaceCodec.from_pretrained("some/codec", revision=revision, samples=40)


def test_the_hub_is_asked_for_the_commit_and_for_safetensors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fnmatch import fnmatch

    asked = []

    def download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(tmp_path)

    make_model("dac").save_pretrained(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    codec = HuggingFaceCodec.from_pretrained("some/codec", revision=COMMIT, samples=40)
    assert codec.alphabet == 16
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("some/codec", COMMIT)

    def wanted(file: str) -> bool:
        return any(fnmatch(file, pattern) for pattern in patterns)

    assert wanted("config.json")
    assert wanted("model.safetensors")
    assert not wanted("pytorch_model.bin")
    assert not wanted("modeling_custom.py")


def test_a_hub_out_of_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match=f"'some/codec' at {COMMIT} could not be fetched"):
        HuggingFaceCodec.from_pretrained("some/codec", revision=COMMIT, samples=40)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "dac", ')


def impossible_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"codebook_size": "many"}))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    no_weights(folder)


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def weight_gone(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop("encoder.conv1.weight"))


def weight_of_another_size(folder: Path) -> None:
    change_weights(
        folder, lambda state: state.update({"encoder.conv1.weight": torch.ones(2, 1, 7)})
    )


def weight_nan(folder: Path) -> None:
    change_weights(folder, lambda state: state["encoder.conv1.weight"].fill_(torch.nan))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_config, "no readable configuration"),
        (broken_config, "no readable configuration"),
        (impossible_config, "no readable configuration|weights in .* cannot be read"),
        (no_weights, "weights in .* cannot be read"),
        (pickled_weights, "Only safetensors are"),
        (cut_weights, "weights in .* cannot be read"),
        (weight_gone, "lacks 1 weights of its model, first 'encoder.conv1.weight'"),
        (weight_of_another_size, "weights in .* cannot be read"),
        (weight_nan, "NaN or infinite weights in 'encoder.conv1.weight'"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_damaged_files_are_told(
    damage: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "codec"
    make_model("dac").save_pretrained(folder)
    damage(folder)
    with pytest.raises(BundleError, match=said):
        HuggingFaceCodec.from_pretrained(folder, samples=40)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    make_model("dac").save_pretrained(tmp_path)
    with pytest.raises(OptionError, match="is a folder, which has no revisions"):
        HuggingFaceCodec.from_pretrained(tmp_path, revision=COMMIT, samples=40)


def test_a_model_of_another_kind_is_no_codec(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=4, n_positions=4))
    model.save_pretrained(tmp_path)
    with pytest.raises(CodecError, match=r"'gpt2' is no codec .* 'encodec', 'dac', 'mimi'"):
        HuggingFaceCodec.from_pretrained(tmp_path, samples=40)
    for other in (model, nn.Linear(2, 2)):
        with pytest.raises(CodecError, match="is no codec that is known here"):
            HuggingFaceCodec(other, samples=40)


# What cannot be


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("encodec", {"audio_channels": 2}, "codes 2 channels together"),
        ("encodec", {"normalize": True}, "keeps the loudness of a signal beside the tokens"),
        ("encodec", {"chunk_length_s": 1.0, "overlap": 0.01}, "codes overlapping chunks of 1.0 s"),
        ("mimi", {"audio_channels": 2}, "codes 2 channels together"),
    ],
)
def test_models_that_tokens_alone_do_not_tell_are_refused(
    kind: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CodecError, match=said):
        make_codec(kind, **changes)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_a_model_is_refused(half: str) -> None:
    model = make_model("mimi")
    setattr(model, half, None)
    with pytest.raises(CodecError, match="without its encoder or its decoder"):
        HuggingFaceCodec(model, samples=80)


@pytest.mark.parametrize("kind", ["encodec", "mimi"])
def test_codes_that_are_all_the_same_are_refused(kind: str) -> None:
    with pytest.raises(CodecError, match="all 16 codes of codebook 0 are the same"):
        HuggingFaceCodec(MODELS[kind]().eval(), samples=80)


@every_kind
@pytest.mark.parametrize("codebook", [-1, LEVELS, 0.0, None])
def test_a_level_that_the_model_lacks_is_refused(kind: str, codebook: Any) -> None:
    with pytest.raises(CodecError, match=f"codebook is one of the model's {LEVELS} levels, 0 to 2"):
        make_codec(kind, codebook=codebook)


@pytest.mark.parametrize(
    ("samples", "instead"), [(0, 16), (-16, 16), (15, 16), (100, 96), (32.0, 16), (None, 16)]
)
def test_a_length_that_is_no_multiple_of_the_hop_is_refused(samples: Any, instead: int) -> None:
    said = rf"positive multiple of the hop, 16, got .*\. Take {instead}\."
    with pytest.raises(SignalError, match=said):
        HuggingFaceCodec(make_model("mimi"), samples=samples)
    with pytest.raises(SignalError, match=said):
        make_codec("mimi").lasting(samples)


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (torch.zeros(2, 40), r"expected signals \[B, 1, 40\], got \[2, 40\]"),
        (torch.zeros(2, 2, 40), "Mix down to mono"),
        (torch.zeros(2, 1, 48), r"codec.lasting\(samples\)"),
        (torch.zeros(2, 1, 40, dtype=torch.int16), "Divide 16-bit samples by 32768"),
        (torch.full((2, 1, 40), torch.nan), "NaN or infinite samples"),
        (torch.full((2, 1, 40), torch.inf), "NaN or infinite samples"),
    ],
)
def test_malformed_signals_are_refused(signals: Tensor, said: str) -> None:
    with pytest.raises(SignalError, match=said):
        make_codec("dac").encode(signals)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (torch.zeros(2, 4, dtype=torch.int64), r"expected tokens \[B, 5\], got \[2, 4\]"),
        (torch.zeros(5, dtype=torch.int64), r"expected tokens \[B, 5\], got \[5\]"),
        (torch.zeros(2, 5), "tokens must be integers"),
        (torch.full((2, 5), 16), r"tokens must lie in \[0, 16\), got \[16, 16\]"),
        (torch.full((2, 5), -1), r"tokens must lie in \[0, 16\), got \[-1, -1\]"),
    ],
)
def test_malformed_tokens_are_refused(tokens: Tensor, said: str) -> None:
    codec = make_codec("dac")
    for method in (codec.embed, codec.decode):
        with pytest.raises(CodecError, match=said):
            method(tokens)


@pytest.mark.parametrize("shape", [(2, 8, 5), (2, 16, 4), (16, 5)])
def test_malformed_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match=r"expected latents \[B, 16, 5\]"):
        make_codec("dac").decode_latents(torch.zeros(shape))


@every_kind
def test_training_mode_is_refused(kind: str) -> None:
    codec = make_codec(kind)
    tokens = codec.encode(noise(2, 5 * HOPS[kind]))
    codec.train()
    with pytest.raises(CodecError, match=r"call codec.eval\(\) before encoding"):
        codec.encode(noise(2, 5 * HOPS[kind]))
    with pytest.raises(CodecError, match=r"call codec.eval\(\) before decoding"):
        codec.decode(tokens)


def test_a_configuration_that_its_layers_do_not_fit_is_told() -> None:
    codec, signals = make_codec("encodec"), noise(2, 40)
    tokens = codec.encode(signals)
    model = make_model("encodec", upsampling_ratios=[2, 2])
    model.config.upsampling_ratios = [4, 2]
    other = HuggingFaceCodec(model, samples=40)
    with pytest.raises(
        CodecError, match="gave 10 tokens of 40 samples, expected 5 by its hop of 8"
    ):
        other.encode(signals)
    with pytest.raises(CodecError, match="made 20 samples of 5 tokens, expected 40"):
        other.decode(tokens)
