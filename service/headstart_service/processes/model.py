"""Prepares a model for workers: `headstart model prepare`."""

from __future__ import annotations

import sys

from ..config.settings import Settings
from ..providers.model_files import short
from ..providers.prepared_model import ModelNotPrepared, Prepared, open_prepared


def prepare_model(settings: Settings, model: str, *, revision: str, force: bool) -> None:
    """Make sure that `model` is prepared, at `revision` if that is given; `force` makes it anew.

    Raises StartupError when it cannot be prepared.
    """
    models = settings.prepared_models
    try:
        prepared = open_prepared(models, model)
    except ModelNotPrepared:
        prepared = None
    if prepared is None or force or revision not in ("", prepared.manifest.revision):
        print(f"model: preparing {model}, once: some 15 seconds", file=sys.stderr, flush=True)
        # Not above: this brings torch.
        from ..providers.model_preparation import prepare

        prepared = prepare(model, models, revision=revision, threads=settings.compute_threads)
    print(_described(prepared))


def _described(prepared: Prepared) -> str:
    made = prepared.manifest
    line = f"model: {prepared.identity.name}, sha256 {short(prepared.identity.sha256)}"
    line += f", {made.dimension} numbers a text"
    if made.reason:
        return f"{line}; it runs on sentence-transformers: {made.reason}"
    return (
        f"{line}, in {prepared.folder}; they differ by at most {made.largest_difference:.1g} "
        "from sentence-transformers'"
    )
