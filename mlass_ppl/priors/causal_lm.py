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

    from ._cache import Pasts


def gpt2_config(
    alphabet: int,
    length: int,
    *,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    begin: int | None = None,
) -> GPT2Config:
    """A small GPT-2 over `alphabet` tokens and one begin token of its own, number `alphabet`.

    begin: another begin token; one below `alphabet` is a code as well and adds no row to the
    vocabulary, as in LASS's models (see `CausalLM`).
    """
    from transformers import GPT2Config

    begin = alphabet if begin is None else begin
    return GPT2Config(
        vocab_size=max(alphabet, begin + 1),
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",  # "gelu_new" in one fused kernel
        bos_token_id=begin,
        eos_token_id=begin,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.0,
    )


@dataclass(frozen=True)
class _State:
    rows: int
    labels: Tensor | None
    pasts: Pasts
    slots: Tensor | None
    """Which of `pasts` each row has, int64 [rows]; None before the first step."""


class CausalLM(nn.Module):
    """Prior from any Hugging Face causal LM that knows its begin token.

    model: a `PreTrainedModel` with `config.bos_token_id == alphabet`, so that position 0 is
    predicted from a token that is no code.
    begin: the begin token, where a model was trained with one that is a code as well: LASS and
    MLASS begin with code 0. Position 0 is told from a code by its place alone then. It has to be
    said: a model whose `bos_token_id` merely happens to be a code is refused.
    labels: number of classes. Sequences of a class begin with a begin token of its own, whose
    embedding is a row of `classes`, [labels, width], and not with the model's: the model and its
    vocabulary are as they were, bit for bit. The rows start as the model's begin token; fit them
    with `mlass_ppl.train.add_labels`.

    Each step feeds one token per row and reads the cache; `reorder` reorders the cache. Stepping
    needs evaluation mode: dropout would make each answer a matter of chance.
    """

    def __init__(
        self, model: nn.Module, alphabet: int, labels: int = 0, *, begin: int | None = None
    ) -> None:
        super().__init__()
        config: Any = model.config
        own = config.bos_token_id
        if begin is None and (own is None or own < alphabet):
            raise PriorError(
                f"the begin token must lie outside the alphabet [0, {alphabet}), got {own}. Build "
                "the model with gpt2_config(alphabet, length); or, where it was trained to begin "
                "with a token that is a code as well, say which: CausalLM(model, alphabet, "
                "begin=0)."
            )
        if not isinstance(labels, int) or labels < 0:
            raise PriorError(f"labels is the number of classes, 0 or more, got {labels!r}.")
        self._begin: int = own if begin is None else begin
        if not 0 <= self._begin < config.vocab_size:
            raise PriorError(
                f"the model's vocabulary ({config.vocab_size}) does not hold its begin token "
                f"({self._begin})."
            )
        self.model = model
        self._alphabet, self._labels = alphabet, labels
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
    def begin(self) -> int:
        """The token that every sequence begins with; below `alphabet`, it is a code as well."""
        return self._begin

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

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _first(self, rows: int, labels: Tensor) -> Tensor:
        """Embeddings [rows, 1, width] of the begin tokens of labels int64 [rows]."""
        check_labels(labels, rows, self._labels)
        begin = self._embedding.weight[self._begin, None]
        table = torch.cat([self.classes.weight, begin]) if self._labels else begin
        return table[labels.to(table.device), None]  # -1, no class, is the last row

    def start(self, rows: int, labels: Tensor | None = None) -> _State:
        from ._cache import make_pasts  # imports transformers, which takes seconds

        if self.model.training:
            raise PriorError("this prior is in training mode, with dropout: call prior.eval().")
        config: Any = self.model.config
        if labels is not None:
            check_labels(labels, rows, self._labels)
        return _State(rows, labels, make_pasts(config, self.length, self._device), None)

    @torch.no_grad()
    def step(self, tokens: Tensor | None, state: _State) -> tuple[Tensor, _State]:
        pasts, position = state.pasts, state.pasts.length
        if (tokens is None) != (state.slots is None):
            raise PriorError(
                f"the first step takes None and every other one its tokens, got "
                f"{'None' if tokens is None else 'tokens'} at position {position}."
            )
        if tokens is not None:
            check_tokens(tokens, state.rows, self._alphabet)
        if self.length is not None and position >= self.length:
            raise PriorError(f"this prior knows sequences of at most {self.length} tokens.")
        # Rows of one past and one token are computed once: they are many where the model is sure,
        # and after a search duplicated rows.
        if tokens is not None and state.slots is not None:
            pairs, row = _distinct(state.slots * self._alphabet + tokens.to(self._device), 0)
            place = pasts.arrange(pairs // self._alphabet, state.rows)
            name, fed = "input_ids", torch.empty_like(pairs)[:, None]
            fed[place] = pairs[:, None] % self._alphabet
        else:
            none = torch.full((state.rows,), -1)
            labels, row = _distinct(none if state.labels is None else state.labels.long(), -1)
            labels, row = labels.to(self._device), row.to(self._device)
            place = pasts.arrange(labels, state.rows)
            if state.labels is None:
                name, fed = "input_ids", torch.full_like(labels, self._begin)[:, None]
            else:
                name, fed = "inputs_embeds", self._first(len(labels), labels)
        log_probs = []
        for part, cache in pasts.parts(len(fed)):
            out = self.model(**{name: fed[part]}, past_key_values=cache, use_cache=True)
            log_probs.append(out.logits[:, -1, : self._alphabet].float().log_softmax(-1))
        slots = place[row]
        return torch.cat(log_probs)[slots], _State(state.rows, state.labels, pasts, slots)

    def reorder(self, state: _State, index: Tensor) -> _State:
        """As `Prior.reorder`; no past is copied before its rows draw different tokens."""
        labels, slots = state.labels, state.slots
        if labels is not None:
            labels = labels[index.to(labels.device)]
        if slots is not None:
            slots = slots[index.to(slots.device)]
        return _State(len(index), labels, state.pasts, slots)


def _distinct(keys: Tensor, none: int) -> tuple[Tensor, Tensor]:
    """The distinct ones of `keys` int64 [rows], ascending, [U], and where among them each row's is,
    int64 [rows]. The last is repeated until there are enough to compute at once; none: what to
    repeat where there are no rows."""
    from ._cache import LEAST

    kinds, row = keys.unique(return_inverse=True)
    last = kinds[-1:] if len(kinds) else kinds.new_tensor([none])
    return torch.cat([kinds, last.expand(max(0, LEAST - len(kinds)))]), row
