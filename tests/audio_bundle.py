"""A bundle of sound, small and untrained, and mixtures for it: low tones, clicks and high tones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from mlass_ppl.bundle import Bundle
from mlass_ppl.codecs import AudioVQ, AudioVQConfig
from mlass_ppl.evidence import Feature
from mlass_ppl.priors import CausalLM, gpt2_config
from mlass_ppl.shapes import additive, chain, joint
from mlass_ppl.tables import Additive

RATE, HOP, SAMPLES = 8_000, 64, 1_280
"""A chunk is 0.16 s, 20 tokens."""

STEMS = ("bass", "drums", "piano")
LEVELS = {"bass": 0.2, "drums": 0.2, "piano": 0.2}
_ALPHABET, _MIXED = 16, 32


def stem(name: str, number: int, samples: int = SAMPLES, seed: int = 0) -> Tensor:
    """Waveforms [number, 1, samples] of one instrument, RMS 0.2 each."""
    # the name's own numbers, not hash(): that is another one in every process
    generator = torch.Generator().manual_seed(1_000 * seed + sum(map(ord, name)))
    time = torch.arange(samples) / RATE
    pitch = torch.rand(number, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(number, 1, generator=generator)
    if name == "drums":
        noise = torch.randn(number, samples, generator=generator)
        signal = noise * torch.exp(-60 * ((time + 0.05 * pitch) % 0.08))
    else:
        low, high = (60, 180) if name == "bass" else (500, 1_200)
        signal = torch.sin(2 * math.pi * (low + (high - low) * pitch) * time + phase)
    signal = 0.2 * signal / signal.square().mean(1, keepdim=True).sqrt()
    return signal[:, None]


def stems(number: int, samples: int = SAMPLES, seed: int = 1) -> dict[str, Tensor]:
    """Each of the three instruments, {name: [number, 1, samples]}."""
    return {name: stem(name, number, samples, seed) for name in STEMS}


def song(seconds: float, rate: int = RATE, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """A mono song [T] at `rate` and its stems {name: [T]}, which sum to it."""
    from mlass_ppl.audio import resample

    made = {
        name: resample(own[0, 0] / len(STEMS), RATE, rate)
        for name, own in stems(1, round(seconds * RATE), seed).items()
    }
    return torch.stack(list(made.values())).sum(0), made


@cache
def make_bundle(names: Sequence[str] = STEMS) -> Bundle:
    """Codecs and priors by instrument, a larger alphabet for mixtures, and the tables of chains,
    of linear features and of tokens. It can be saved."""
    signals = {name: stem(name, 60) for name in STEMS}
    bundle = Bundle(
        "tiny-band",
        _codec(torch.stack(list(signals.values())).mean(0), _MIXED),
        {name: _prior(place) for place, name in enumerate(names)},
        smoothing=Additive(0.1),
        card={"levels": {name: LEVELS[name] for name in names}},
        codecs={name: _codec(signals[name], _ALPHABET) for name in names},
    )
    return with_tables(bundle, signals, names)


def with_tables(bundle: Bundle, signals: Mapping[str, Tensor], names: Sequence[str]) -> Bundle:
    """The bundle with the tables of the first two and of all of these sources, if there are two."""
    linear = Feature(linear=True)
    if len(names) < 2:
        return bundle
    for some in dict.fromkeys((tuple(names[:2]), tuple(names))):
        programs = (chain(some), chain(some, evidence=linear), additive(some), joint(some))
        for program in programs:
            bundle = bundle.count(program, signals, mixtures=200)
    return bundle


def _codec(signals: Tensor, alphabet: int) -> AudioVQ:
    config = AudioVQConfig(
        samples=SAMPLES, sample_rate=RATE, hop=HOP, alphabet=alphabet, latent=32, features=16,
        width=8, blocks=1,
    )  # fmt: skip
    return AudioVQ.fit(signals, config).requires_grad_(False)


def _prior(seed: int) -> CausalLM:
    from transformers import GPT2LMHeadModel

    torch.manual_seed(seed)
    config = gpt2_config(_ALPHABET, SAMPLES // HOP, width=16, layers=1, heads=2)
    return CausalLM(GPT2LMHeadModel(config), _ALPHABET).eval().requires_grad_(False)
