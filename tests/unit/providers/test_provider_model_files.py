"""What a model's identity depends on: the content that is loaded, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstart_service.domain.errors import StartupError
from headstart_service.providers.model_files import (
    DEFAULT_MODEL,
    ModelIdentity,
    ModelMissing,
    full_name,
    identify,
    local_directory,
    source_directory,
)

FILES = {
    "modules.json": b"[]",
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocab.txt": b"a\n",
    "model.safetensors": b"weights",
    "1_Pooling/config.json": b"{}",
    "2_Dense/pytorch_model.bin": b"weights",
}


def write(directory: Path, name: str, content: bytes) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        write(tmp_path / "model", name, content)
    return tmp_path / "model"


def sha256(model: Path) -> str:
    return identify(str(model)).sha256


def test_equal_content_has_the_same_digest_wherever_it_is(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "deep" / "er"
    for name, content in reversed(FILES.items()):
        write(other, name, content)
    os.utime(other / "config.json", (1, 1))
    assert sha256(other) == sha256(model)
    assert identify(str(other)) != identify(str(model)), "callers see the name"


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_loaded_counts(model: Path, name: str) -> None:
    before = sha256(model)
    content = (model / name).read_bytes()
    (model / name).write_bytes(content[::-1] + b" ")
    assert sha256(model) != before
    (model / name).write_bytes(content)
    assert sha256(model) == before
    (model / name).rename(model / f"{name}.json")
    assert sha256(model) != before, "content under another name is another model"


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", ".gitattributes", "LICENSE", "train_script.py", "data_config.json"),
        *(".cache/huggingface/download/x.json", "__pycache__/x.pyc", "onnx/config.json"),
        *("openvino/model.bin", "model.onnx", "tf_model.h5", "rust_model.ot"),
        "pytorch_model.bin",  # the safetensors beside it are loaded
    ],
)
def test_what_no_model_is_loaded_from_does_not_count(model: Path, name: str) -> None:
    before = sha256(model)
    write(model, name, b"anything")
    assert sha256(model) == before


def test_weights_of_the_old_form_count_where_they_are_loaded(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    before = sha256(model)
    (model / "pytorch_model.bin").write_bytes(b"others")
    assert sha256(model) != before


def test_links_are_followed_and_circles_end(model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in model.iterdir():  # as a mounted volume has them
        (linked / path.name).symlink_to(path)
    assert sha256(linked) == sha256(model)
    (linked / "again").symlink_to(linked)
    assert sha256(linked) == sha256(model)


def test_files_that_cannot_be_read_are_named(model: Path) -> None:
    (model / "added.json").symlink_to(model / "nothing")
    with pytest.raises(StartupError, match=r"HEADSTART_MODEL: cannot read .*added\.json: No such"):
        identify(str(model))


def test_a_model_of_the_hub_is_found_where_it_was_downloaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    names = ("someone/some-model", "some-model")
    for name in (*names, "no name at all", "/no/such/directory"):
        with pytest.raises(ModelMissing, match="not on this machine"):
            identify(name)

    def download(repository: str, commit: str, weights: bytes) -> None:
        cached = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        shutil.copytree(model, cached / "snapshots" / commit)
        write(cached, f"snapshots/{commit}/model.safetensors", weights)
        write(cached, "refs/main", commit.encode())

    download("someone/some-model", "1" * 40, FILES["model.safetensors"])
    download("sentence-transformers/some-model", "1" * 40, FILES["model.safetensors"])
    for name in names:
        assert identify(name) == ModelIdentity(name, sha256(model))
    download("someone/some-model", "2" * 40, b"a new revision")
    assert identify(names[0]).sha256 != sha256(model)


def test_the_default_models_digest_is_that_of_its_files() -> None:
    directory = source_directory(DEFAULT_MODEL)
    names = [
        *("1_Pooling/config.json", "config.json", "config_sentence_transformers.json"),
        *("model.safetensors", "modules.json", "sentence_bert_config.json"),
        *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    ]
    lines = [f"{hashlib.sha256((directory / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert identify(DEFAULT_MODEL).sha256 == expected
    assert str(identify(DEFAULT_MODEL)) == f"{DEFAULT_MODEL}@sha256:{expected}"


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "someone/some-model"])
def test_identifying_a_model_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys\n"
        "from headstart_service.domain.errors import StartupError\n"
        "from headstart_service.providers.model_files import identify\n"
        "try: identify(sys.argv[1])\n"
        "except StartupError: pass\n"
        "print({'numpy', 'torch', 'transformers', 'sentence_transformers'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("/" + "x" * 5000, "cannot read '/xxx.*': File name too long"),
        ("bad\udcff", r"= 'bad\\udcff': must be UTF-8"),
        ("/proc/self/root/dev/null/x" + "/y" * 3000, "cannot read '.*': File name too long"),
    ],
)
def test_a_path_that_cannot_be_followed_is_refused(model: str, reason: str) -> None:
    with pytest.raises(StartupError, match="HEADSTART_MODEL:? " + reason):
        full_name(model)


def test_a_home_that_is_unknown_is_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert full_name("~no-such-user/model") == str(tmp_path / "~no-such-user" / "model")
    with pytest.raises(ModelMissing, match="not on this machine"):
        identify("~no-such-user/model")


def test_a_directory_has_one_name_also_where_it_is_not(model: Path, tmp_path: Path) -> None:
    written = (str(model), f"{model}/", f"{tmp_path}/./model", f"{model}/1_Pooling/..")
    assert {full_name(each) for each in written} == {str(model)}
    shutil.rmtree(model)
    assert {full_name(each) for each in written} == {str(model)}
    assert full_name("someone/some-model") == "someone/some-model"


def test_no_directory_stands_for_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DEFAULT_MODEL).mkdir()
    monkeypatch.chdir(tmp_path)
    assert local_directory(DEFAULT_MODEL) is None
    assert source_directory(DEFAULT_MODEL) != Path(DEFAULT_MODEL)
    assert full_name(DEFAULT_MODEL) == f"sentence-transformers/{DEFAULT_MODEL}"
