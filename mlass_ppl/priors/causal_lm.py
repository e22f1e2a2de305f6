"""A Hugging Face causal language model as a prior, with its key-value cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import PriorError
from .base import check_labels, check_tokens

if TYPE_CHECKING:
    from transformers import GPT2Config


def gpt2_config(
    alphabet: int, length: int, *, width: int = 128, layers: int = 4, heads: int = 4
) -> GPT2Config:
    """A small GPT-2 over `alphabet` tokens and one begin token of its own, number `alphabet`."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=alphabet + 1,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",  # "gelu_new" in one fused kernel
        bos_token_id=alphabet,
        eos_token_id=alphabet,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.0,
    )


@dataclass(frozen=True)
class _State:
    rows: int
    labels: Tensor | None
    cache: Any


class CausalLM(nn.Module):
    """Prior from any Hugging Face causal LM whose begin token lies outside the alphabet.

    model: a `PreTrainedModel` with `config.bos_token_id == alphabet`, so that position 0 is
    predicted from a token that is no code (LASS and MLASS used code 0, which is also a real code).
    labels: number of classes. Sequences of a class begin with a begin token of its own, whose
    embedding is a row of `classes`, [labels, width], and not with the model's: the model and its
    vocabulary are as they were, bit for bit. The rows start as the model's begin token; fit them
    with `mlass_ppl.train.add_labels`.

    Each step feeds one token per row and reads the cache; `reorder` reorders the cache. Stepping
    needs evaluation mode: dropout would make each answer a matter of chance.
    """

    def __init__(self, model: nn.Module, alphabet: int, labels: int = 0) -> None:
        super().__init__()
        config: Any = model.config
        if config.bos_token_id is None or config.bos_token_id < alphabet:
            raise PriorError(
                f"the begin token must lie outside the alphabet [0, {alphabet}), got "
                f"{config.bos_token_id}. Build the model with gpt2_config(alphabet, length)."
            )
        if not isinstance(labels, int) or labels < 0:
            raise PriorError(f"labels is the number of classes, 0 or more, got {labels!r}.")
        if config.vocab_size <= config.bos_token_id:
            raise PriorError(
                f"the model's vocabulary ({config.vocab_size}) does not hold its begin token "
                f"({config.bos_token_id})."
            )
        self.model = model
        self._alphabet, self._labels = alphabet, labels
        self._begin: int = config.bos_token_id
        if labels:
            first = self._embedding.weight.detach()[self._begin]
            self.classes = nn.Embedding.from_pretrained(first.repeat(labels, 1), freeze=False)
        self.train(model.training)

    @property
    def alphabet(self) -> int:
        return self._alphabet

    @property
    def length(self) -> int | None:
        config: Any = self.model.config
        return getattr(config, "max_position_embeddings", None)

    @property
    def labels(self) -> int:
        """Number of classes that the prior can be conditioned on."""
        return self._labels

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(z_t | z_{<t}, label) for all t at once: tokens [B, T] -> float [B, T, K], nats.

        labels: int64 [B], the class of each row or -1 for none.
        """
        if self.length is not None and tokens.shape[1] > self.length:
            raise PriorError(
                f"this prior knows sequences of at most {self.length} tokens, got "
                f"{tokens.shape[1]}."
            )
        if labels is None:
            begin = tokens.new_full((len(tokens), 1), self._begin)
            given: dict[str, Tensor] = {"input_ids": torch.cat([begin, tokens[:, :-1]], 1)}
        else:
            first = self._first(len(tokens), labels)
            given = {"inputs_embeds": torch.cat([first, self._embedding(tokens[:, :-1])], 1)}
        logits = self.model(**given, use_cache=False).logits
        return logits[..., : self._alphabet].log_softmax(-1)

    @property
    def _embedding(self) -> nn.Embedding:
        model: Any = self.model
        embedding: nn.Embedding = model.get_input_embeddings()
        return embedding

    def _first(self, rows: int, labels: Tensor) -> Tensor:
        """Embeddings [rows, 1, width] of the begin tokens of labels int64 [rows]."""
        check_labels(labels, rows, self._labels)
        begin = self._embedding.weight[self._begin, None]
        table = torch.cat([self.classes.weight, begin]) if self._labels else begin
        return table[labels.to(table.device), None]  # -1, no class, is the last row

    def start(self, rows: int, labels: Tensor | None = None) -> _State:
        from transformers import DynamicCache

        if self.model.training:
            raise PriorError("this prior is in training mode, with dropout: call prior.eval().")
        config: Any = self.model.config
        if labels is not None:
            check_labels(labels, rows, self._labels)
        return _State(rows, labels, DynamicCache(config=config))

    @torch.no_grad()
    def step(self, tokens: Tensor | None, state: _State) -> tuple[Tensor, _State]:
        cache = state.cache
        position = cache.get_seq_length()
        if (tokens is None) != (position == 0):
            raise PriorError(
                f"the first step takes None and every other one its tokens, got "
                f"{'None' if tokens is None else 'tokens'} at position {position}."
            )
        if tokens is not None:
            check_tokens(tokens, state.rows, self._alphabet)
            given = {"input_ids": tokens[:, None]}
        elif state.labels is not None:
            given = {"inputs_embeds": self._first(state.rows, state.labels)}
        else:
            device = next(self.model.parameters()).device
            given = {"input_ids": torch.full((state.rows, 1), self._begin, device=device)}
        if self.length is not None and position >= self.length:
            raise PriorError(f"this prior knows sequences of at most {self.length} tokens.")
        out = self.model(**given, past_key_values=cache, use_cache=True)
        log_probs = out.logits[:, -1, : self._alphabet].float().log_softmax(-1)
        return log_probs, _State(state.rows, state.labels, out.past_key_values)

    def reorder(self, state: _State, index: Tensor) -> _State:
        state.cache.batch_select_indices(index)
        labels = state.labels
        if labels is not None:
            labels = labels[index.to(labels.device)]
        return _State(len(index), labels, state.cache)
