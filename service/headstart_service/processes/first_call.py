"""The command that a server suggests once it serves."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..config.settings import Settings
from ..pipeline.pipeline import Pipeline
from ..pipelines.bridging import BRIDGING

_DEFAULT: Final = ("localhost:50051", "127.0.0.1:50051")
"""Addresses that the command calls by itself."""
_EXAMPLES: Final[Mapping[str, Any]] = {
    "string": "some text",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
}
"""A value of each type of a JSON schema."""


def first_call(settings: Settings, known: Iterable[Pipeline], address: str) -> str:
    """Return a command that this server can answer: the start of a pipeline that it has."""
    before = ""
    if settings.tls_cert:
        before += "HEADSTART_CA=YOUR_CA.pem "
    if settings.tls_client_ca:
        before += "HEADSTART_CLIENT_CERT=YOURS.pem HEADSTART_CLIENT_KEY=YOURS.key "
    if settings.tokens:
        before += "HEADSTART_TOKEN=YOUR_TOKEN "
    where = "" if address in _DEFAULT else f" --address {address}"
    return f"{before}{_headstart()} {_command(known)}{where}"


def _command(known: Iterable[Pipeline]) -> str:
    for pipeline in known:
        if pipeline is BRIDGING:
            return "start game-1 ocean forest"
        inputs = example_inputs(pipeline)
        if inputs is not None:
            text = shlex.quote(json.dumps(inputs))
            return f"start try-1 --pipeline {pipeline.name} --inputs {text}"
    return "pipelines"


def example_inputs(pipeline: Pipeline) -> dict[str, Any] | None:
    """Return inputs that the pipeline accepts; None if simple values of each type do not do."""
    try:
        schema = pipeline.inputs.model_json_schema()
        fields = {name: schema["properties"][name] for name in schema.get("required", ())}
        inputs = {name: _example(field) for name, field in fields.items()}
        pipeline.plan(inputs, "inputs")
    except Exception:  # noqa: BLE001  # an author's validators may raise anything
        return None
    return inputs


def _example(field: Mapping[str, Any]) -> Any:
    for key in ("examples", "enum"):
        if field.get(key):
            return field[key][0]
    return _EXAMPLES.get(field.get("type", ""))


def _headstart() -> str:
    """Return this environment's command as it can be typed here."""
    beside = Path(sys.executable).with_name("headstart")
    on_path = shutil.which("headstart")
    if not beside.exists() or (on_path and Path(on_path).samefile(beside)):
        return "headstart"
    try:
        return str(beside.relative_to(Path.cwd()))
    except (OSError, ValueError):  # the working directory was deleted, or is elsewhere
        return str(beside)
