"""Pipelines whose version depends on the environment. Each value names the version and the model that made it.

The model is the name of the language model, the identity of a provider. No step calls it.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from headstart_service.sdk import Pipeline, step

VERSION = os.environ.get("TEST_PIPELINE_VERSION", "1")
MODULE = "tests.support.versioned_pipelines"
REFERENCES = f"{MODULE}:VERSIONED,{MODULE}:REMEMBERING"
MADE_BY = re.compile(r"version (\w+) model (\w+)")


class Named(Protocol):
    """The part of the language model that these steps use."""

    @property
    def identity(self) -> str: ...


def made_by(model: Named) -> str:
    return f"version {VERSION} model {model.identity}"


class Inputs(BaseModel):
    value: int = 0
    count: int = 1
    pause: float = 0.0
    """Seconds that each of three steps takes."""
    gate: str = ""
    """The second step ends when this file exists; empty: at once."""


@step(required=True)
async def one(value: int, pause: float, language_model: Named) -> str:
    await asyncio.sleep(pause)
    return f"{value}: {made_by(language_model)}"


@step(required=True, timeout=120)
async def two(one: str, pause: float, gate: str, language_model: Named) -> str:
    await asyncio.sleep(pause)
    while gate and not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.005)
    return f"{made_by(language_model)}, {one}"


@step(required=True)
async def apart(value: int, pause: float, language_model: Named) -> str:
    await asyncio.sleep(pause / 2)
    return f"{value}: {made_by(language_model)}"


@step(required=True)
async def counted(two: str, apart: str, count: int) -> str:
    """Takes no provider: its model is that of the steps which it needs."""
    return f"{count} of {two} and {apart}"


VERSIONED = Pipeline(
    name="versioned",
    version=VERSION,
    description="Names what made its values",
    inputs=Inputs,
    steps=(one, two, apart, counted),
)


class Word(BaseModel):
    word: str
    key: str = ""
    """Takes no part in the memo."""


@step(required=True, memo=True)
async def remembered(word: str, language_model: Named) -> str:
    return f"{word}: {made_by(language_model)}"


@step(required=True)
async def signed(remembered: str, key: str) -> str:
    return f"{key} {remembered}"


REMEMBERING = Pipeline(
    name="remembering",
    version=VERSION,
    description="Remembers what made its values",
    inputs=Word,
    steps=(remembered, signed),
)
