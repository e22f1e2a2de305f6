"""One thread, one seed, and hypothesis that draws the same examples every time."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyro
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "mlass",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("mlass")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds() -> Iterator[None]:
    """Each test starts from the same seeds and leaves the default type as it was."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (what libraries draw from)
    pyro.clear_param_store()
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)
