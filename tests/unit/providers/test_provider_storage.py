"""The provider `storage`, on a real directory and on fsspec's memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headstart.testing import run_pipeline
from headstart_service.domain.errors import StartupError, StepFailed
from headstart_service.pipeline.step import step
from headstart_service.providers.storage import FileStorage, open_storage
from headstart_service.sdk import Reference, Storage
from tests.support.ledger import pipeline_of
from tests.support.virtual_time import Clock

DATA = b"large" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = 480_000 * 3600.0
    return clock


@pytest.fixture(params=["file", "memory"])
async def storage(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[FileStorage]:
    root = tmp_path / "root"
    url = f"file://{root}" if request.param == "file" else f"memory://{tmp_path.name}"
    async with open_storage(url, ttl=5400.0, clock=clock) as opened:
        yield opened


async def test_what_was_put_is_read_by_its_reference(storage: FileStorage, tmp_path: Path) -> None:
    reference = await storage.put(DATA)
    assert (reference.bytes, reference.sha256) == (len(DATA), SHA256)
    assert await storage.get(reference) == DATA
    with storage.open(reference) as file:
        assert file.read(5) == b"large"
    local = tmp_path / "local"
    local.write_bytes(DATA)
    assert await storage.put(local) == reference
    again = Reference.model_validate_json(reference.model_dump_json())
    assert await storage.get(again) == DATA


async def test_data_live_as_long_as_the_setting_says_and_then_go(
    storage: FileStorage, clock: Clock
) -> None:
    first = await storage.put(DATA)
    clock.now += 5400.0
    assert await storage.sweep() == 0
    later = await storage.put(DATA)
    assert later != first
    clock.now += 3600.0
    assert await storage.sweep() == 1
    with pytest.raises(StepFailed, match=f"the data {SHA256[:12]} are not stored any more"):
        await storage.get(first)
    assert await storage.get(later) == DATA


async def test_a_reference_that_leads_elsewhere_is_refused(
    storage: FileStorage, tmp_path: Path
) -> None:
    reference = await storage.put(DATA)
    (tmp_path / "secret").write_text("secret")
    hour = reference.url.split("/")[-2]
    root = reference.url.removesuffix(f"/{hour}/{SHA256}")
    for url in (
        f"file://{tmp_path}/secret",
        f"{root}/../secret",
        f"{root}/{hour}/../../secret",
        f"{root}/{hour}/../{hour}/{SHA256}",
        f"{root}/{hour}/{SHA256}.part",
        f"{root}x/{hour}/{SHA256}",
        f"x{reference.url}",
        f"{root}/{hour}/{'0' * 64}",
    ):
        with pytest.raises(StepFailed, match="is none of this storage"):
            await storage.get(reference.model_copy(update={"url": url}))


async def test_data_that_were_changed_are_not_taken_for_those_of_before(tmp_path: Path) -> None:
    async with open_storage(f"file://{tmp_path}/root", ttl=60.0) as storage:
        reference = await storage.put(DATA)
        [file] = [each for each in (tmp_path / "root").rglob("*") if each.is_file()]
        for changed in (DATA[:-1], DATA + b"x", b"X" * len(DATA)):
            file.write_bytes(changed)
            with pytest.raises(StepFailed, match="are not those of the reference"):
                await storage.get(reference)
        assert await storage.put(DATA) == reference, "written with the same size, it stays"


async def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async with open_storage(f"file://{tmp_path}/root", ttl=60.0) as storage:
        with pytest.raises(FileNotFoundError):
            await storage.put(tmp_path / "missing")
        assert [each for each in (tmp_path / "root").rglob("*") if each.is_file()] == []
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / "notes").mkdir()
        (tmp_path / "root" / "2020").mkdir()
        assert await storage.sweep() == 0, "what the service has not made stays"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must be a URL, such as file:///srv/headstart"),
        ("/srv/headstart", "must be a URL"),
        ("nosuch://x/y", "must be a URL that fsspec knows"),
        ("file:///", "not the root of all"),
    ],
)
async def test_a_url_that_cannot_be_used_ends_the_start(url: str, said: str) -> None:
    with pytest.raises(StartupError, match=f"HEADSTART_STORAGE .*{said}"):
        async with open_storage(url, ttl=60.0):
            pass


class NoInputs(BaseModel):
    """A pipeline without inputs."""


async def test_a_step_hands_data_on_by_reference(storage: FileStorage) -> None:
    @step()
    async def table(storage: Storage) -> Reference:
        return await storage.put(DATA)

    @step()
    async def size(table: Reference, storage: Storage) -> int:
        return len(await storage.get(table))

    @step(runs_on="thread")
    def head(table: Reference, storage: Storage) -> str:
        with storage.open(table) as file:
            return file.read(5).decode()

    given: dict[str, Any] = {"storage": storage}
    run = await run_pipeline(pipeline_of(table, size, head), {}, providers=given)
    assert run.values["table"].sha256 == SHA256
    assert (run.values["size"], run.values["head"]) == (len(DATA), "large")
