"""Fixtures of the training tests."""

import pytest

from mipprune.graph.groups import ChannelGroups
from mipprune.models import Dataset
from tests.training.networks import TinyNet, tiny_data, tiny_groups


@pytest.fixture
def groups() -> ChannelGroups:
    return tiny_groups()


@pytest.fixture
def net() -> TinyNet:
    return TinyNet()


@pytest.fixture(scope="session")
def data() -> Dataset:
    return tiny_data()
