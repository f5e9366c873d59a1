"""A module that a real server describes: mypy accepts right code alone, and the module works."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio
from mypy import api as mypy

from headstart import BlockingClient, PrecomputeClient, Tensor
from tests.support import schema_pipelines, typed_pipelines
from tests.support.commands import done_here
from tests.support.generated_modules import PYTHON_RIGHT, PYTHON_WRONG, PYTHON_WRONG_LINES
from tests.support.processes import ROOT, serving
from tests.support.valkey import Valkey

PIPELINES = (f"{typed_pipelines.__name__}:TYPED", *schema_pipelines.REFERENCES)


@pytest_asyncio.fixture
async def address(valkey: Valkey) -> AsyncIterator[str]:
    pipelines = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": ",".join(PIPELINES)}
    async with serving(**pipelines, HEADSTART_REDIS_URL=valkey.url) as (_, found):
        yield found


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def names() -> Iterator[None]:
    """Forgets the modules that a test imports."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def generated(address: str, path: Path, *options: str) -> str:
    done = await asyncio.to_thread(
        done_here,
        "pipelines",
        "generate",
        "--python",
        *options,
        "--address",
        address,
        "--out",
        str(path),
    )
    assert done == (0, "", "")
    return await asyncio.to_thread(path.read_text)


async def test_mypy_accepts_a_servers_module_and_its_right_use_alone(
    address: str, tmp_path: Path
) -> None:
    text = await generated(address, tmp_path / "pipelines.py")
    packages = [part for each in PIPELINES for part in ("--from", each)]
    declared = await asyncio.to_thread(done_here, "pipelines", "generate", "--python", *packages)
    made = re.compile("^Made by: .*$", re.MULTILINE)
    assert made.sub("", text) == made.sub("", declared.out)

    blocking = await generated(address, tmp_path / "blocking_pipelines.py", "--blocking")
    assert "BlockingClient" in blocking
    (tmp_path / "right.py").write_text(PYTHON_RIGHT)
    (tmp_path / "wrong.py").write_text(PYTHON_WRONG)
    files = ("pipelines.py", "blocking_pipelines.py", "right.py", "wrong.py")
    out, err, _ = await asyncio.to_thread(
        mypy.run,
        [
            "--strict",
            "--config-file=",
            "--no-error-summary",
            "--hide-error-context",
            f"--cache-dir={ROOT / '.mypy_cache' / 'generated'}",
            *(str(tmp_path / each) for each in files),
        ],
    )
    errors = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error: ", out, re.MULTILINE)
    assert not err
    assert sorted({(file, int(line)) for file, line in errors}) == [
        ("wrong.py", line) for line in PYTHON_WRONG_LINES
    ], out


async def test_a_generated_module_starts_and_reads_a_run(
    address: str, tmp_path: Path, names: None
) -> None:
    await generated(address, tmp_path / "generated_async.py")
    await generated(address, tmp_path / "generated_blocking.py", "--blocking")
    pipelines = imported(tmp_path / "generated_async.py")
    async with PrecomputeClient(address) as client:
        started = await pipelines.start_typed(client, "k", text="a bee a")
        found = await pipelines.get_typed(
            client, "k", wait=20, required_steps=["lengths", "raw"], min_revision=started.revision
        )
        assert found.run.key == "k"
        assert (found.words, found.raw, found.page) == (["a", "bee", "a"], b"a bee a", None)
        assert isinstance(found.lengths, Tensor)

        key = {"text": "", "key_": 1, "class_": "a", "from_to": 1.5, "depth": None}
        await pipelines.start_schemas_all_2(client, "s", **key)
        every = await pipelines.get_schemas_all_2(client, "s", wait=20)
        assert every.awkward["a-b"] == {"left": 1, "right": None}
        assert every.run_ is None
        assert every.tree["children"] == [{"value": 2, "children": []}]
    blocking = imported(tmp_path / "generated_blocking.py")
    with BlockingClient(address) as client:
        again = await asyncio.to_thread(blocking.start_typed, client, "k", text="a bee a")
        assert again.revision == started.revision
        read = await asyncio.to_thread(blocking.get_typed, client, "k", wait=20)
        assert read.counts[0] == {"word": "a", "times": 2, "share": 2 / 3}
