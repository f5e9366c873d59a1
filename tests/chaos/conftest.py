from __future__ import annotations

import random

import pytest

from tests.support.chance import seeded


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """When and where each fault strikes."""
    return seeded(request.node.name)
