"""A sentence-transformers model of 2 MB, whose weights are drawn by a seed: embeds words in 1 ms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from headstart_service.providers.model_files import (
    DEFAULT_MODEL,
    ModelIdentity,
    digests_of,
    full_name,
    identity_by,
    source_directory,
)
from headstart_service.providers.prepared_model import (
    MANIFEST,
    Prepared,
    PreparedModel,
    directory_of,
)

DIMENSION = 16


def prepare_model(directory: Path, models: Path, seed: int) -> Prepared:
    """Write a model into `directory`, and prepare it in `models`."""
    from headstart_service.providers.model_preparation import prepare

    write_model(directory, seed)
    return prepare(str(directory), models)


def keep_unexported(directory: Path, models: Path, weights: bytes) -> ModelIdentity:
    """Keep a model that sentence-transformers would have to load: needs no torch."""
    directory.mkdir(exist_ok=True)
    (directory / "model.safetensors").write_bytes(weights)
    model = str(directory)
    digests = digests_of(directory)
    identity = identity_by(model, digests)
    manifest = PreparedModel(
        format=1,
        model=full_name(model),
        model_sha256=identity.sha256,
        model_files=digests,
        engine="sentence-transformers",
        reason="a test says so",
        dimension=4,
    )
    kept = directory_of(models, model)
    kept.mkdir(parents=True, exist_ok=True)
    (kept / MANIFEST).write_text(manifest.model_dump_json())
    return identity


def write_model(directory: Path, seed: int) -> None:
    """Put a model into `directory`, in place of the one there; equal seeds give equal files."""
    import torch
    from transformers import BertConfig, BertModel

    source = source_directory(DEFAULT_MODEL)
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("modules.json", "sentence_bert_config.json", "tokenizer.json"):
        shutil.copy(source / name, directory)
    shutil.copy(source / "tokenizer_config.json", directory)
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = json.loads((source / "1_Pooling" / "config.json").read_text())
    pooling["word_embedding_dimension"] = DIMENSION
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    config = BertConfig(
        vocab_size=json.loads((source / "config.json").read_text())["vocab_size"],
        hidden_size=DIMENSION,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=DIMENSION,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(directory)
