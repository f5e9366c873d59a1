"""A vocabulary directory with any damage opens as what it says it is, or is told unusable."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart_service.providers.building import build
from headstart_service.providers.model_files import ModelIdentity
from headstart_service.providers.vocabulary import VocabularyUnusable, is_current, open_vocabulary
from tests.fuzz import budget
from tests.fuzz.wire import mutated

MODEL = ModelIdentity("m", "0" * 64)
_WORDS = [f"word{number}" for number in range(40)]
_DIMENSION = 8
_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 39, 41, 2**31, 2**63, 2**64, 10**400, 1.0, "40", "", [], {}, [[]], "\ud800"),
]  # fmt: skip
_HEADERS = [
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (40, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (40, 80000000), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-40, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (40, 8, " + b"1," * 80 + b"), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 8), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (40, 8), }",
    b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (40, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (40, 8)",
    b"(" * 200,
    b"'''",
    b"\x00\xff",
    b"",
]
Damage = Callable[[Path, random.Random], None]


def _rewrite(path: Path, data: bytes) -> None:
    path.unlink()  # a file that is mapped must not change under its reader
    path.write_bytes(data)


def _mutate(name: str) -> Damage:
    def damage(directory: Path, dice: random.Random) -> None:
        path = directory / name
        _rewrite(path, mutated(path.read_bytes(), dice))

    return damage


def _manifest(directory: Path, **changes: Any) -> None:
    path = directory / "manifest.json"
    _rewrite(path, json.dumps(json.loads(path.read_bytes()) | changes).encode())


def _change_manifest(directory: Path, dice: random.Random) -> None:
    names = sorted(json.loads((directory / "manifest.json").read_bytes()))
    _manifest(directory, **{dice.choice(names): dice.choice(_VALUES)})


def _words_in_agreement(directory: Path, dice: random.Random) -> None:
    """Other words, and a manifest that vouches for them."""
    path = directory / "words.txt"
    _rewrite(path, mutated(path.read_bytes(), dice))
    _manifest(directory, words_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _embeddings_in_agreement(directory: Path, dice: random.Random) -> None:
    path = directory / "embeddings.npy"
    data = path.read_bytes()
    if dice.random() < 0.5:
        data = mutated(data[:160], dice) + data[160:]
    else:
        header = dice.choice(_HEADERS)
        if dice.random() < 0.5:
            header = header.ljust(117) + b"\n"
        size = len(header).to_bytes(2, "little")
        data = b"\x93NUMPY\x01\x00" + size + header + data[128:]
    _rewrite(path, data)
    digest = hashlib.sha256(data).hexdigest()
    _manifest(directory, embeddings_bytes=len(data), embeddings_sha256=digest)


def _no_array(directory: Path, dice: random.Random) -> None:
    path = directory / "embeddings.npy"
    data = dice.choice((b"", b"PK\x03\x04" + b"x" * 50, b"PK\x05\x06" + bytes(18), b"\x80\x04N."))
    _rewrite(path, data)
    _manifest(directory, embeddings_bytes=len(data))


def _deep_manifest(directory: Path, dice: random.Random) -> None:
    deep = dice.choice((b"[", b'{"a":')) * dice.choice((100, 60_000))
    _rewrite(directory / "manifest.json", deep)


def _remove(directory: Path, dice: random.Random) -> None:
    dice.choice(sorted(path for path in directory.iterdir() if path.is_file())).unlink()


def _directory_instead(directory: Path, dice: random.Random) -> None:
    path = dice.choice([directory / name for name in ("manifest.json", "words.txt")])
    path.unlink()
    path.mkdir()


_DAMAGES: tuple[Damage, ...] = (
    *(_mutate("manifest.json"), _mutate("words.txt"), _mutate("embeddings.npy")),
    *(_change_manifest, _words_in_agreement, _embeddings_in_agreement, _embeddings_in_agreement),
    *(_no_array, _deep_manifest, _remove, _directory_instead),
)


def _encode(texts: Any) -> Any:
    rows = np.ones((len(texts), _DIMENSION), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vocabulary")
    build(directory, _WORDS, _encode, MODEL, "test")
    return directory


def _opens_or_is_unusable(directory: Path, *, thorough: bool) -> None:
    """Read all of it: what lies beyond the file would end this process."""
    try:
        opened = open_vocabulary(directory, MODEL, thorough=thorough)
    except VocabularyUnusable:
        is_current(directory, MODEL)  # asked without numpy, so of the array it cannot tell
        return
    assert opened.matrix.shape == (len(opened.words), opened.manifest.dimension)
    assert opened.matrix.nbytes <= opened.manifest.embeddings_bytes
    opened.matrix.tobytes()
    assert len(opened.index) <= len(opened.words)


def test_any_damage_is_reported_as_such(whole: Path, tmp_path: Path):
    dice = budget.dice("vocabulary")
    for number in range(budget.cases(600, 10_000)):
        directory = tmp_path / f"{number}"
        shutil.copytree(whole, directory)
        for _ in range(dice.choice((1, 1, 2))):
            try:
                dice.choice(_DAMAGES)(directory, dice)
            except (OSError, ValueError, TypeError, RecursionError):
                break  # the first damage left nothing for the second
        _opens_or_is_unusable(directory, thorough=dice.random() < 0.5)
        shutil.rmtree(directory)
        budget.count("vocabularies")


@pytest.mark.parametrize("header", _HEADERS)
def test_any_array_header_is_reported_as_such(whole: Path, tmp_path: Path, header: bytes):
    directory = tmp_path / "v"
    shutil.copytree(whole, directory)
    path = directory / "embeddings.npy"
    data = path.read_bytes()
    size = len(header).to_bytes(2, "little")
    _rewrite(path, b"\x93NUMPY\x01\x00" + size + header + data[128:])
    _manifest(directory, embeddings_bytes=path.stat().st_size)
    with pytest.raises(VocabularyUnusable):
        open_vocabulary(directory, MODEL)
    budget.count("vocabularies")
