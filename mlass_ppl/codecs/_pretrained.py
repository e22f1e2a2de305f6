"""Weights of a Hugging Face codec from a folder or the Hub, as safetensors alone."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from ..errors import BundleError, OptionError
from ._residual import check_kind

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]


def read_model(name: str | Path, revision: str | None) -> nn.Module:
    """The model in a folder, or of that name on the Hub, as float32, frozen and in evaluation mode.

    Raises OptionError where a name on the Hub is not pinned to a commit, BundleError where files
    are missing, damaged or incomplete, CodecError on another kind of model.
    """
    from transformers import AutoConfig, AutoModel

    folder = _find(name, revision)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the readers of a damaged file fail in many ways
        raise BundleError(
            f"{folder} has no readable configuration of a model ({_line(error)}). Expected a "
            "folder that save_pretrained wrote: config.json and model.safetensors."
        ) from error
    check_kind(config)
    try:
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise BundleError(
            f"the weights in {folder} cannot be read ({_line(error)}). Only safetensors are, "
            "which hold nothing but numbers: expected model.safetensors, whole and of the sizes "
            "in config.json. Fetch it again, or write it with save_pretrained."
        ) from error
    if missing := sorted(info["missing_keys"]):  # transformers would leave them to chance
        raise BundleError(
            f"{folder} lacks {len(missing)} weights of its model, first '{missing[0]}'. Restore "
            "config.json and model.safetensors from one source."
        )
    for key, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise BundleError(f"{folder} holds NaN or infinite weights in '{key}'. Fetch it again.")
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


def _find(name: str | Path, revision: str | None) -> Path:
    """The folder of the files, fetched if need be."""
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise OptionError(
                f"{folder} is a folder, which has no revisions, got revision={revision!r}. Leave "
                "it out; or is there a folder of the name of a repository?"
            )
        return folder
    if isinstance(name, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise BundleError(
            f"there is no folder {name}, and it is no name on the Hugging Face Hub "
            "('owner/name'). Is the path right?"
        )
    if revision is None or not _COMMIT.fullmatch(revision):
        raise OptionError(
            f"'{name}' is no folder here; as a name on the Hugging Face Hub it needs "
            f"revision=..., the 40 hexadecimal digits of a commit, got {revision!r}. Branches and "
            "tags move, and tables fit only the weights that they were counted for. The page of "
            "the repository lists its commits under 'Files and versions'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # of the network, a proxy, the Hub, rights or the disk
        raise BundleError(
            f"'{name}' at {revision} could not be fetched ({_line(error)}). Are name and revision "
            "right, and is the Hub within reach? Else fetch the folder elsewhere and give its path."
        ) from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
