"""The demo model, once for all tests of the room."""

import pytest
import torch

from attnscope.models.loading import LoadedModel, load


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo() -> LoadedModel:
    """In float32 on the CPU: 4 layers, 8 query heads and 2 kv heads of 64."""
    return load("demo", device="cpu")
