"""One token position of a separation again: the posterior that its candidate was drawn from."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ._separating.observations import Observer
from ._separating.pasts import SourcePriors
from ._separating.sound import Sound, lasting
from .bundle import Bundle
from .codecs import AudioCodec
from .errors import OptionError
from .infer import Engine, Posterior
from .search import Search
from .separation import Separation


@torch.no_grad()
def replay(
    separation: Separation,
    bundle: Bundle,
    position: int,
    *,
    infer: Engine | None = None,
    level: float | None = None,
) -> Posterior:
    """The posterior of one token position, given the chosen candidate's tokens before it, [M, 1].

    Priors are told the chosen tokens of all earlier positions and tempered as the search did; what
    is observed is encoded anew. `log_evidence` is then that of the separation, up to rounding,
    evidence[m, chosen[m], position], where the position was not skipped. bundle: the one that was
    separated with, its tables included. position: 0 .. T - 1. infer: an engine (default: that of
    the separation, which Auto() picks again). level: of the recording that waveforms are cut from
    (default: as it was given to `separate`).

    Raises OptionError on a position that is not there, another bundle and a separation without
    settings, and else as `separate` does: UnseenToken at positions that were skipped.
    """
    length = separation.evidence.shape[2]
    if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < length:
        raise OptionError(
            f"position is one of the {length} tokens of a signal, 0 to {length - 1}, got "
            f"{position!r}."
        )
    engine, search = _settings(separation, bundle, infer)
    level = separation.settings.get("level") if level is None else level
    graph, observed = separation.graph, dict(separation.observed)
    if isinstance(bundle.codec, AudioCodec):
        sound = Sound.of(observed, graph, bundle, level)
        observed = sound.into(observed, bundle.codec.hop)
        bundle = lasting(bundle, sound.length)
    elif level is not None:
        raise OptionError("level is of waveforms, but this separation is of images: leave it out.")
    given = Observer(graph, bundle)(observed)
    pasts = SourcePriors(graph, bundle).start(len(separation), 1)
    plan = engine.plan(graph, bundle.tables(graph, engine.factors(graph)))
    temper = partial(search.temper, position=position, length=length)
    drawn: dict[str, Tensor] | None = None
    for t in range(position):
        pasts.step(drawn, lambda log: log)
        drawn = {name: separation.tokens[name][:, t : t + 1] for name in graph.sources}
    log_priors = pasts.step(drawn, temper)
    return plan.posterior(log_priors, {name: own[:, position] for name, own in given.items()})


def _settings(
    separation: Separation, bundle: Bundle, infer: Engine | None
) -> tuple[Engine, Search]:
    settings = separation.settings
    if "search" not in settings or not (infer or "infer" in settings):
        raise OptionError(
            "this separation does not say how it was made: its settings lack 'infer' or 'search'. "
            "Take one made by separate()."
        )
    if bundle.name != (name := settings.get("bundle", bundle.name)):
        raise OptionError(
            f"this separation was made with bundle '{name}', got '{bundle.name}': load('{name}')."
        )
    engine: Engine = infer if infer is not None else settings["infer"]
    search: Search = settings["search"]
    return engine, search
