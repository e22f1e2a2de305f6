"""`mlass evaluate slakh|stems|fsdd`: a bundle of sound on a data set of stems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ._common import engine_from_name, say, shape_for

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..evaluate import Method
    from ..evaluate.audio import StemStimuli
    from ..evaluate.audio.masks import PostFilter

ENGINES = ("auto", "bp")
"""What is evaluated by default."""

SOUND = {"slakh": "band", "stems": "band", "fsdd": "spoken"}
"""The data sets of sound, and the bundle that each is evaluated with by default."""


def stimuli_from(
    data: str,
    bundle: Bundle,
    data_root: Path | None,
    split: str,
    stems: Sequence[str],
    baselines: Sequence[Path],
) -> StemStimuli:
    """The stems of a split of the data set that is called `data`; `stems` chooses and orders them.

    Raises DataError where there is none, OptionError where its folder is not given.
    """
    from ..data.audio import fsdd, slakh, stem_folders
    from ..evaluate.audio import Baseline, StemStimuli, recordings, song_chunks, stems_of

    if data == "fsdd":
        found = fsdd(data_root)
    elif data_root is None:
        raise OptionError(f"`mlass evaluate {data}` needs --data-root, the folder of the songs.")
    else:
        found = slakh(data_root) if data == "slakh" else stem_folders(data_root)
    for line in found.notices:
        _notice(line)
    return StemStimuli(
        data,
        found.split(split),
        stems_of(bundle, stems),
        recordings if data == "fsdd" else song_chunks,
        tuple(map(Baseline.read, baselines)),
        notice=_notice,
    )


def stem_methods(names: Sequence[str], memory: float | None, floor: bool) -> tuple[Method, ...]:
    """The methods that --infer names, on features that are linear in the stems; `tokens` and
    `tokens-exact` are BP and exact inference on tokens, the extractor is of tokens, too. memory:
    the limit of exact inference. floor: whether the priors alone are a row as well."""
    from dataclasses import replace

    from .. import shapes
    from ..evaluate import Method, PriorOnly
    from ..infer import BP, Exact

    exact = Exact() if memory is None else Exact(memory_limit=memory)
    methods = [Method("floor:prior", shapes.star, PriorOnly())] if floor else []
    for name in names:
        if name == "tokens":
            methods.append(Method(name, shapes.chain, BP()))
        elif name == "tokens-exact":
            methods.append(Method(name, shapes.joint, exact))
        else:
            engine: Any = engine_from_name(name, sound=True)
            if name == "exact" and memory is not None:
                engine = replace(engine, memory_limit=memory)
            linear: dict[str, Any] = {"chain": linear_chain, "joint": shapes.additive}
            shape = linear.get(shape_for(name)) or getattr(shapes, shape_for(name))
            methods.append(Method(name, shape, engine))
    return tuple(methods)


def linear_chain(stems: Sequence[str]) -> Any:
    """A chain whose mixture is observed by a feature that is linear in the stems."""
    from ..evidence import Feature
    from ..shapes import chain

    return chain(stems, evidence=Feature(linear=True))


def postfilter_from(name: str) -> PostFilter | None:
    """What --refine names for sound. Raises OptionError on a refinement of images."""
    from ..evaluate.audio import PostFilter

    if name not in ("auto", "none"):
        raise OptionError(
            f"--refine {name} is of images; expected auto (the Wiener filter) or none for sound."
        )
    return None if name == "none" else PostFilter()


def _notice(line: str) -> None:
    say(line, style="yellow", stderr=True)
