import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from headstart_service.config.settings import Settings
from headstart_service.domain.errors import StartupError
from headstart_service.pipeline.identity import identity_of
from headstart_service.providers.building import build, ensure_vocabulary
from headstart_service.providers.encoder import Encoder
from headstart_service.providers.model_files import DEFAULT_MODEL, ModelIdentity
from headstart_service.providers.progress import build_progress
from headstart_service.providers.vocabulary import (
    FORMAT,
    Vocabulary,
    VocabularyDamaged,
    VocabularyMismatch,
    VocabularyMissing,
    examined,
    is_current,
    open_vocabulary,
)
from headstart_service.providers.words import Source

WORDS = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "lmnprst" * 4]
WORDS = list(dict.fromkeys(f"{word}{'x' * (at % 3)}{at // 280}" for at, word in enumerate(WORDS)))
M = ModelIdentity("m", "0" * 64)
RENAMED = ModelIdentity("other", "0" * 64)
OTHER = ModelIdentity("other", "2" * 64)
REPLACED = ModelIdentity("m", "1" * 64)
SOURCE = Source("test", lambda: WORDS)


def encode(texts: Sequence[str]) -> Any:
    """A stand-in for the model: a unit vector that depends on the text alone."""
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    rows = np.array([list(digest) for digest in digests], dtype=np.float32) - 127.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build_here(directory: Path, model: ModelIdentity = M, words: Sequence[str] = WORDS) -> None:
    build(directory, words, encode, model, "test")


def never(texts: Sequence[str]) -> Any:
    raise AssertionError(f"{len(texts)} words were embedded though nothing was to be built")


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_what_was_built_is_opened(tmp_path: Path) -> None:
    build_here(tmp_path / "deep" / "vocabulary")
    opened = open_vocabulary(tmp_path / "deep" / "vocabulary", M, "test", thorough=True)
    assert list(opened.words) == WORDS
    assert np.array_equal(opened.matrix, encode(WORDS))
    assert opened.index[WORDS[7]] == 7
    assert not opened.matrix.flags.writeable
    assert (type(opened.words), type(opened.index)) == (tuple, MappingProxyType)
    assert type(opened.matrix) is np.ndarray
    assert files(tmp_path / "deep" / "vocabulary") == {
        "embeddings.npy", "words.txt", "manifest.json", ".lock"
    }  # fmt: skip


def test_the_real_vocabulary_holds_the_models_vectors(
    vocabulary: Vocabulary, encoder: Encoder
) -> None:
    words = vocabulary.words[:50]
    assert np.allclose(vocabulary.matrix[:50], encoder.encode(words), atol=1e-5)
    assert vocabulary.manifest.model == DEFAULT_MODEL
    assert vocabulary.matrix.shape == (3000, 384)


def test_progress_ends_with_all_words(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build(tmp_path, WORDS, encode, M, "test", lambda done, total: told.append((done, total)))
    assert told[0] == (0, len(WORDS))
    assert told[-1] == (len(WORDS), len(WORDS))
    assert told == sorted(told)


def test_each_format_has_a_directory_of_its_own() -> None:
    directory = Settings.model_fields["vocabulary"].default
    assert directory.name == f"vocabulary-{FORMAT}"


def test_nothing_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path, tmp_path / "no", tmp_path / "file"):
        with pytest.raises(VocabularyMissing):
            open_vocabulary(directory, M)
        assert not is_current(directory, M)


def test_another_model_source_or_format_is_a_mismatch(tmp_path: Path) -> None:
    build_here(tmp_path)
    assert is_current(tmp_path, M)
    assert is_current(tmp_path, M, "test")
    with pytest.raises(
        VocabularyMismatch, match=r"of the model m with sha256 0+, not of other with 2"
    ):
        open_vocabulary(tmp_path, OTHER)
    with pytest.raises(VocabularyMismatch, match="its words are of 'test', not 'else'"):
        open_vocabulary(tmp_path, M, "else")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(VocabularyMismatch, match="its format is 1, not 3"):
        open_vocabulary(tmp_path, M)


def edit_manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def cut(name: str) -> Callable[[Path], None]:
    return lambda directory: os.truncate(directory / name, (directory / name).stat().st_size - 1)


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def replace(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return replace


DAMAGES = {
    "manifest not JSON": write("manifest.json", b"{"),
    "manifest not an object": write("manifest.json", b"[1]"),
    "manifest not UTF-8": write("manifest.json", b"\xff\xff\xff"),
    "manifest cut": cut("manifest.json"),
    "count not a number": edit_manifest(count="many"),
    "count missing": edit_manifest(count=None),
    "count wrong": edit_manifest(count=3),
    "dimension wrong": edit_manifest(dimension=3),
    "words cut": cut("words.txt"),
    "words other": write("words.txt", b"other\n"),
    "words missing": lambda directory: (directory / "words.txt").unlink(),
    "embeddings cut": cut("embeddings.npy"),
    "embeddings missing": lambda directory: (directory / "embeddings.npy").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_mended(tmp_path: Path, damage: str) -> None:
    build_here(tmp_path)
    if damage != "manifest cut":  # it ends in a line end that nothing needs
        DAMAGES[damage](tmp_path)
    else:
        os.truncate(tmp_path / "manifest.json", 40)
    with pytest.raises(VocabularyDamaged):
        open_vocabulary(tmp_path, M)
    mended = ensure_vocabulary(tmp_path, M, SOURCE, encode)
    assert np.array_equal(mended.matrix, encode(WORDS))


def test_embeddings_of_the_right_size_but_not_an_array_are_damaged(tmp_path: Path) -> None:
    build_here(tmp_path)
    size = (tmp_path / "embeddings.npy").stat().st_size
    (tmp_path / "embeddings.npy").write_bytes(b"x" * size)
    with pytest.raises(VocabularyDamaged, match="is not an array file"):
        open_vocabulary(tmp_path, M)


def test_a_flipped_bit_is_found_when_thorough(tmp_path: Path) -> None:
    build_here(tmp_path)
    with (tmp_path / "embeddings.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x00")
    with pytest.raises(VocabularyDamaged, match="is not what the manifest describes"):
        open_vocabulary(tmp_path, M, thorough=True)


def test_what_is_current_is_not_built_again(tmp_path: Path) -> None:
    build_here(tmp_path)
    assert list(ensure_vocabulary(tmp_path, M, SOURCE, never).words) == WORDS
    assert list(ensure_vocabulary(tmp_path, M, None, never).words) == WORDS, "whatever is there"
    assert list(ensure_vocabulary(tmp_path, RENAMED, SOURCE, never).words) == WORDS, "equal files"


def test_replaced_weights_rebuild_what_has_the_same_name(tmp_path: Path) -> None:
    build_here(tmp_path)
    assert not is_current(tmp_path, REPLACED)
    for open_ in (open_vocabulary, examined):
        with pytest.raises(VocabularyMismatch, match=r"m with sha256 0{12}, not of m with 1{12}$"):
            open_(tmp_path, REPLACED)
    assert examined(tmp_path, None).model_sha256 == M.sha256
    rebuilt = ensure_vocabulary(tmp_path, REPLACED, SOURCE, lambda texts: -encode(texts))
    assert np.array_equal(rebuilt.matrix, -encode(WORDS))
    assert is_current(tmp_path, REPLACED)
    assert not is_current(tmp_path, M)


def test_the_identity_is_of_words_and_model_and_of_no_bits_of_vectors(tmp_path: Path) -> None:
    identities = []
    for number, (model, words, more) in enumerate(
        [
            (M, WORDS, 0),
            (M, WORDS, 1e-7),  # as another processor rounds
            (RENAMED, WORDS, 0),  # vectors do not depend on what their model is called
            (REPLACED, WORDS, 0),
            (M, WORDS[::-1], 0),
        ]
    ):
        directory = tmp_path / f"{number}"
        build(directory, words, lambda texts, more=more: encode(texts) + more, model, "test")
        identities.append(identity_of(open_vocabulary(directory, model, thorough=True)))
    assert identities[0] == identities[1] == identities[2]
    assert len(set(identities)) == 3


def test_another_model_rebuilds(tmp_path: Path) -> None:
    build_here(tmp_path)
    ensure_vocabulary(tmp_path, OTHER, SOURCE, encode)
    assert is_current(tmp_path, OTHER)
    assert not is_current(tmp_path, M)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, StartupError])
@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_build_leaves_what_was_there(
    *, tmp_path: Path, interruption: type[BaseException], before: bool
) -> None:
    if before:
        build_here(tmp_path)

    def interrupted(texts: Sequence[str]) -> Any:
        if len(texts) > 1:
            raise interruption
        return encode(texts)

    with pytest.raises(interruption):
        build(tmp_path, WORDS, interrupted, OTHER, "test")
    assert is_current(tmp_path, M) == before
    assert not any(name.startswith(".building") for name in files(tmp_path))


def test_a_killed_builder_leaves_nothing_that_is_taken_for_finished(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "import numpy as np\n"
        "from headstart_service.providers.building import build\n"
        "from headstart_service.providers.model_files import ModelIdentity\n"
        "def encode(texts):\n"
        "    if len(texts) > 1: print('half way', flush=True); time.sleep(60)\n"
        "    return np.ones((len(texts), 4), dtype=np.float32)\n"
        "build(Path(sys.argv[1]), ['abc'] * 1000, encode, ModelIdentity('m', '0' * 64), 'test')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(signal.SIGKILL)
    assert any(name.startswith(".building") for name in files(tmp_path))
    assert not is_current(tmp_path, M)
    ensure_vocabulary(tmp_path, M, SOURCE, encode)
    assert is_current(tmp_path, M, "test")
    assert not any(name.startswith(".building") for name in files(tmp_path))


def test_a_build_that_ends_between_two_renames_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_here(tmp_path)
    real_replace = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == "words.txt":
            raise KeyboardInterrupt
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        # Files of the same sizes and the same words: nothing else could tell them apart.
        build(tmp_path, WORDS, lambda texts: -encode(texts), M, "test")
    with pytest.raises(VocabularyMissing):
        open_vocabulary(tmp_path, M)


def test_of_concurrent_builders_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    builds: list[int] = []
    opened: list[Vocabulary] = []
    barrier = threading.Barrier(4)

    def count(texts: Sequence[str]) -> Any:
        builds.extend([1] if texts == WORDS[:1] else [])
        return encode(texts)

    def come() -> None:
        barrier.wait(10)
        opened.append(ensure_vocabulary(tmp_path, M, SOURCE, count))

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert [list(v.words) for v in opened] == [WORDS] * 4


def test_a_build_during_opening_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_here(tmp_path)
    open_memmap = np.lib.format.open_memmap
    others = [WORDS[::-1]]

    def slow(path: Path, **options: Any) -> Any:
        if (
            others and options["mode"] == "r"
        ):  # between the words and the matrix another process builds the same, reversed
            build_here(tmp_path, words=others.pop())
        return open_memmap(path, **options)

    monkeypatch.setattr("numpy.lib.format.open_memmap", slow)
    opened = open_vocabulary(tmp_path, M)
    assert list(opened.words) == WORDS[::-1]
    assert np.array_equal(opened.matrix, encode(WORDS[::-1]))


def test_an_open_vocabulary_outlives_a_rebuild(tmp_path: Path) -> None:
    build_here(tmp_path)
    opened = open_vocabulary(tmp_path, M)
    build_here(tmp_path, words=WORDS[::-1])
    assert np.array_equal(opened.matrix, encode(WORDS))


def test_a_directory_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot write the vocabulary's directory"):
        build_here(tmp_path / "file" / "vocabulary")


def test_asking_whether_it_is_current_imports_nothing_heavy(tmp_path: Path) -> None:
    build_here(tmp_path)
    code = (
        "import sys; from pathlib import Path;"
        "from headstart_service.providers.model_files import ModelIdentity;"
        "from headstart_service.providers.vocabulary import is_current;"
        "print(is_current(Path(sys.argv[1]), ModelIdentity('m', '0' * 64), 'test'), 'numpy' in sys.modules,"
        "'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "False"]


def test_without_a_terminal_progress_is_a_few_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = io.StringIO()
    with caplog.at_level(logging.INFO), build_progress(stream) as progress:
        for done in range(0, 1001, 10):
            progress(done, 1000)
    assert stream.getvalue() == ""
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == "embedding the vocabulary: 1000 of 1000 words"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_when_nothing_is_built_no_bar_is_shown() -> None:
    stream = Terminal()
    with build_progress(stream):
        pass
    assert stream.getvalue() == ""


def test_in_a_terminal_progress_is_a_bar() -> None:
    stream = Terminal()
    with build_progress(stream) as progress:
        progress(0, 1000)
        progress(1000, 1000)
    assert "1000/1000" in stream.getvalue()
