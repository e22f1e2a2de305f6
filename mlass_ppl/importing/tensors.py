"""PyTorch files of tensors, read without running what they may hold besides."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import BundleError

Model = TypeVar("Model", bound=nn.Module)

_MIX = (
    "The published files share one name, 256-sigmoid-big.pt: is it in the folder of another? Say "
    "which is which with --vqvae, --prior and --sums."
)
_PICKLE = b"\x80"
"""How files begin that torch.save wrote before PyTorch 1.6, and pickles of anything."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, as float32 and integer tensors on the CPU.

    Raises BundleError, naming the file, when it is missing, damaged, holds anything but tensors by
    name, or values that are not finite.
    """
    found = _read(path)
    if not isinstance(found, dict) or not found:
        raise BundleError(
            f"{path} holds a {type(found).__name__}; expected a state dict, weights by name. {_MIX}"
        )
    state = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BundleError(
                f"{path} holds a {type(value).__name__} as '{name}'; expected a state dict of "
                "tensors alone. Of a whole training checkpoint, save its state dict: "
                "torch.save(model.state_dict(), FILE)."
            )
        if value.layout is not torch.strided:
            raise BundleError(f"{path} holds a sparse '{name}'; weights are dense. {_MIX}")
        _check_whole(value, path, name)
        state[name] = value.float() if value.is_floating_point() else value
        if not torch.isfinite(state[name]).all():
            raise BundleError(f"{path} holds NaN or infinite weights in '{name}'. Fetch it again.")
    return state


def read_tensor(path: Path) -> Tensor:
    """The one tensor in a file, dense or sparse COO, on the CPU, its values not looked at.

    Raises BundleError, naming the file, when it is missing, damaged or holds anything else.
    """
    found = _read(path)
    if not isinstance(found, Tensor):
        raise BundleError(f"{path} holds a {type(found).__name__}; expected one tensor. {_MIX}")
    if found.layout is torch.sparse_coo:
        for name, part in (("indices", found._indices()), ("values", found._values())):
            _check_whole(part, path, name)
    elif found.layout is torch.strided:
        _check_whole(found, path, "tensor")
    else:
        raise BundleError(f"{path} holds a {found.layout} tensor; expected dense or sparse COO.")
    return found


def build(make: Callable[[], Model], state: dict[str, Tensor], path: Path) -> Model:
    """The module that `make` makes, with the weights of a state dict, frozen and in evaluation
    mode.

    Raises BundleError, naming the file and the weights, where names or shapes are not the module's;
    before that nothing of its size is allocated.
    """
    with torch.device("meta"):
        _check_names(make(), state, path)
    module = make()
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def is_matrix(value: Tensor) -> bool:
    """Whether a tensor is [rows, columns] with one or more of both."""
    return value.ndim == 2 and value.numel() > 0


def _check_names(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if lost := sorted(expected.keys() - state.keys()):
        raise BundleError(
            f"{path} has no weights {_some(lost)}; it has {_some(sorted(state))}. {_MIX}"
        )
    if more := sorted(state.keys() - expected.keys()):
        raise BundleError(
            f"{path} has weights {_some(more)}, which the published model lacks. {_MIX}"
        )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise BundleError(
                f"{path} has '{name}' of shape {list(state[name].shape)}; expected {list(shape)}, "
                "by the sizes of its other weights. Is it a variant of the published model?"
            )


def _read(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}. Is the path right?") from error
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle may fail in any way
        line = next(iter(str(error).strip().splitlines()), "")
        # By name: what torch raises on objects is of a module that nothing here should load.
        if type(error).__name__ == "UnpicklingError" and _is_whole(data):
            raise BundleError(
                f"{path} holds Python objects besides tensors, which could run code of their own, "
                "and was not read. The published files hold tensors alone: fetch it from its "
                "authors. Of your own model, save torch.save(model.state_dict(), FILE)."
            ) from error
        raise BundleError(
            f"{path} is no whole PyTorch file ({type(error).__name__}: {line}). Was the download "
            "cut short, or is it the page of the download, or the archive, under the name of the "
            "file? Fetch it again, and unpack archives with tar -xf."
        ) from error


def _is_whole(data: bytes) -> bool:
    """Whether bytes may be a file of torch.save; one cut short lacks the directory at its end."""
    try:
        return data[:1] == _PICKLE or zipfile.is_zipfile(io.BytesIO(data))
    except zipfile.BadZipFile:
        return False


def _check_whole(value: Tensor, path: Path, name: str) -> None:
    """A few bytes may claim any shape, by strides of zero or no storage at all."""
    held = 0 if value.is_meta else value.untyped_storage().nbytes()
    if value.is_quantized or held < value.numel() * value.element_size():
        raise BundleError(
            f"{path} claims shape {list(value.shape)} for '{name}', but holds only {held:,} bytes "
            "of it. Fetch it again from its authors."
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
