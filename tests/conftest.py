"""Settings shared by all tests."""

import os

# Two processes with two OpenMP threads each on two cores collapse to a tenth of the speed.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("mipprune", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mipprune")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
