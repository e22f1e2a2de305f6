"""Priors on disk: a card entry of sizes and a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..weights import load_weights, save_weights
from .base import Prior
from .causal_lm import CausalLM, gpt2_config

_ARCHITECTURE = (
    "vocab_size", "bos_token_id", "n_inner", "activation_function", "layer_norm_epsilon",
    "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings",
)  # fmt: skip
"""What of a GPT-2 changes its output and is no size in the card."""


def describe_prior(key: str, prior: Prior) -> dict[str, Any]:
    """A prior's entry in the card. Raises BundleError when it could not be made again from it."""
    if not isinstance(prior, CausalLM):
        raise BundleError(f"prior '{key}' is no CausalLM; only those have a format on disk.")
    if not key or Path(key).name != key:
        raise BundleError(f"prior key '{key}' cannot name a file: expected a word such as 'digit'.")
    model: Any = prior.model
    config = model.config.to_dict()
    if config["model_type"] != "gpt2" or prior.length is None:
        raise BundleError(
            f"prior '{key}' is a {config['model_type']} model; only GPT-2 has a format on disk."
        )
    sizes = {"width": config["n_embd"], "layers": config["n_layer"], "heads": config["n_head"]}
    if prior.begin != prior.alphabet:  # else as cards were before there were others
        sizes["begin"] = prior.begin
    plain = gpt2_config(prior.alphabet, prior.length, **sizes).to_dict()
    if other := {name: config[name] for name in _ARCHITECTURE if config[name] != plain[name]}:
        raise BundleError(
            f"prior '{key}' differs from gpt2_config({prior.alphabet}, {prior.length}, ...) in "
            f"{other}, which the format on disk does not hold. Build it with gpt2_config."
        )
    file = f"prior-{key}.safetensors"
    fixed = {"kind": "gpt2", "file": file, "alphabet": prior.alphabet, "length": prior.length}
    labels = {"labels": prior.labels} if prior.labels else {}  # as cards were before labels
    return {**fixed, **labels, **sizes}


def write_prior(prior: Prior, path: Path) -> str:
    """Write the weights of a prior that `describe_prior` took; returns their fingerprint."""
    assert isinstance(prior, CausalLM)
    return save_weights(_stored(prior), path)


def read_prior(entry: dict[str, Any], path: Path) -> CausalLM:
    """The prior of a card entry, with the weights at `path`; BundleError where they do not fit."""
    from transformers import GPT2LMHeadModel

    if entry["kind"] != "gpt2":
        raise BundleError(f"unknown prior kind '{entry['kind']}' for {path}: expected 'gpt2'.")
    sizes = {key: entry[key] for key in ("width", "layers", "heads")}
    begin = entry.get("begin")
    model = GPT2LMHeadModel(gpt2_config(entry["alphabet"], entry["length"], **sizes, begin=begin))
    prior = CausalLM(model, entry["alphabet"], entry.get("labels", 0), begin=begin)
    load_weights(_stored(prior), path)
    return prior.eval()


def _stored(prior: CausalLM) -> Any:
    """What of a prior is in its file: the model, and only with classes the module around it."""
    return prior if prior.labels else prior.model
