"""Fixtures of the training tests."""

import pytest

from mipprune.graph.groups import ChannelGroups
from mipprune.models import Dataset
from tests.training.digits import DigitsReference, trained_reference
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


@pytest.fixture(scope="session")
def digits_reference() -> DigitsReference:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    return trained_reference()
