"""The wheel that packaging tests install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.packaging.commands import run
from tests.support.processes import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    # By the hatchling that is here: `make setup` has built with one of its own.
    options = ("--quiet", "--no-deps", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", directory, ROOT)
    (found,) = directory.glob("headstart-*.whl")
    return found
