"""What has found bugs before, once more. A case is a file; its folder and name say what it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from headstart_service.commands.cli import main
from headstart_service.config.settings import variable
from headstart_service.providers.vocabulary import VocabularyDamaged, open_vocabulary
from tests.fuzz import budget
from tests.fuzz.test_fuzz_vocabulary import MODEL, whole
from tests.fuzz.victim import Victim

CORPUS = Path(__file__).parent / "corpus"

__all__ = ["whole"]


def cases(kind: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One test for each file of this folder."""
    found = sorted((CORPUS / kind).iterdir())
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda path: path.name)


@cases("requests")
def test_requests(victim: Victim, case: Path):
    """`Method-what.bin`: none of these was ever right."""
    [code] = victim.call_all([(case.name.partition("-")[0], case.read_bytes())])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    victim.is_well()
    budget.count("corpus")


@cases("grpc")
def test_bytes_on_the_grpc_port(victim: Victim, case: Path):
    victim.run(_send(victim.port, case.read_bytes()))
    victim.is_well()
    budget.count("corpus")


@cases("http")
def test_bytes_on_the_http_port(victim: Victim, case: Path):
    victim.run(_send(victim.http_port, case.read_bytes()))
    victim.is_well()
    budget.count("corpus")


async def _send(port: int, data: bytes) -> None:
    """Send it, and read until the server has had enough or the bytes are answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


@cases("vocabulary")
def test_vocabularies(whole: Path, tmp_path: Path, case: Path):  # its fixture
    """`file-what`: that file of a vocabulary, whose manifest agrees with it."""
    directory = tmp_path / "vocabulary"
    shutil.copytree(whole, directory)
    name, data = case.name.partition("-")[0], case.read_bytes()
    (directory / name).unlink()
    (directory / name).write_bytes(data)
    if name != "manifest.json":
        manifest = json.loads((directory / "manifest.json").read_text())
        digest = hashlib.sha256(data).hexdigest()
        if name == "words.txt":
            manifest["words_sha256"] = digest
        else:
            manifest |= {"embeddings_sha256": digest, "embeddings_bytes": len(data)}
        (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VocabularyDamaged):
        open_vocabulary(directory, MODEL, thorough=True)
    budget.count("corpus")


@cases("settings")
def test_settings(case: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`setting-what`: its variable's value."""
    value = os.fsdecode(case.read_bytes())
    monkeypatch.setenv(variable(case.name.partition("-")[0]), value)
    with (tmp_path / "out").open("w", encoding="utf-8") as out, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert main(["check-config"]) in (0, 2)
    budget.count("corpus")
