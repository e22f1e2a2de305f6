"""`mlass info`: versions, device and threads, for bug reports and for one's own peace of mind."""

from __future__ import annotations

import json
import platform
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from rich.markup import escape

from ._common import console, cores, sentences

_PACKAGES = (
    "torch", "numpy", "pyro-ppl", "transformers", "vector-quantize-pytorch", "safetensors",
    "lightning", "networkx", "scikit-learn", "matplotlib", "pillow", "pgmpy", "typer", "rich",
)  # fmt: skip
_OPTIONAL = ("torchvision", "torchaudio")


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show versions, device, threads, and whether torchvision and torchaudio import."""
    with sentences():
        facts = collect()
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
            return
        from rich.table import Table

        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for key, value in facts.items():
            table.add_row(escape(key), escape(str(value)))
        console().print(table)


def collect() -> dict[str, Any]:
    """The facts that `mlass info` shows, in its order; JSON values."""
    import torch

    from .._version import __version__

    facts: dict[str, Any] = {
        "mlass_ppl": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for name in _PACKAGES:
        facts[name] = _version(name)
    for name in _OPTIONAL:
        facts[name] = _import(name)
    if torch.cuda.is_available():
        facts["device"] = f"cuda ({torch.cuda.get_device_name(0)})"
    else:
        facts["device"] = "cpu"
    facts["cores"] = cores()
    facts["threads"] = torch.get_num_threads()
    return facts


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _import(name: str) -> str:
    """Version of an optional package, or why it does not import."""
    version = _version(name)
    if version == "not installed":
        return version
    try:
        import_module(name)
    except Exception as error:  # a CUDA wheel beside a CPU torch fails with more than ImportError
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{version}, but it does not import: {line}"
    return version
