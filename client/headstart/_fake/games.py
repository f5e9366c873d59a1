"""What `headstart.testing.fake_server` knows of the bridging pipeline: its steps and its inputs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from headstart._errors.suggestions import suggested
from headstart._fake.checks import Checks, has_control_characters
from headstart.v1 import precompute_pb2 as pb

NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "embed_endpoints": (),
    "haiku_bridge": (),
    "haiku_embeddings": ("haiku_bridge",),
    "lexical_bridge": ("embed_endpoints",),
    "null_samples": ("embed_endpoints",),
}
"""The pipeline's steps, each with those whose results it takes."""

_UNKNOWN: Final = "is not an input of this pipeline"
_LONGEST_WORD: Final = 64
_LONGEST_RAW: Final = 1024
_LONGEST_SHOWN: Final = 40
_COUNTS: Final = {"clue_count": (5, 50), "null_sample_count": (100, 10_000)}
"""Default and greatest value."""
_RECIPIENTS: Final = {pb.RECIPIENT_TYPE_HUMAN: "human", pb.RECIPIENT_TYPE_HAIKU: "haiku"}
_WORDS: Final = ("anchor", "target")
_INPUTS: Final = (*_WORDS, "recipient_type", *_COUNTS)


def inputs_of(spec: pb.BridgingSpec) -> dict[str, Any]:
    """Return a game's inputs as the pipeline takes them by its name, too."""
    given: dict[str, Any] = {"anchor": spec.anchor, "target": spec.target}
    given["recipient_type"] = _RECIPIENTS.get(spec.recipient_type, "unspecified")
    for name in _COUNTS:
        if spec.HasField(name):  # type: ignore[arg-type]  # the stubs want literals
            given[name] = getattr(spec, name)
    return given


def game_inputs(given: Mapping[str, Any], path: str, checks: Checks) -> dict[str, Any]:
    """Return the inputs, normalised and whole: equal ones are the same game.

    Adds to `checks` what the service would refuse. `path` is where they stand in the request.
    """
    inputs: dict[str, Any] = {}
    for name in _WORDS:
        rule = "is required" if name not in given else _broken(given[name])
        if rule is not None:
            checks.add(f"{path}.{name}", rule)
            continue
        inputs[name] = _normalised(given[name])
        if name == "target" and inputs["target"] == inputs.get("anchor"):
            rule = f"must differ from anchor, both are {inputs['target']!r}"
            checks.add(f"{path}.target", rule)
    inputs["recipient_type"] = given.get("recipient_type")
    if inputs["recipient_type"] not in ("human", "haiku"):  # it may be a list, which no set accepts
        checks.add(f"{path}.recipient_type", "must be human or haiku")
    for name, (default, most) in _COUNTS.items():
        value = given.get(name, default)
        whole = (
            isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        )
        if not whole:
            checks.add(f"{path}.{name}", f"must be a whole number, 1 to {most}, is {_brief(value)}")
            continue
        inputs[name] = int(value)
        if not 1 <= value <= most:
            checks.add(f"{path}.{name}", f"must be 1 to {most}, is {_brief(int(value))}")
    unknown = [name for name in given if name not in _INPUTS]
    for name, rule in zip(unknown, suggested(_UNKNOWN, unknown, _INPUTS), strict=True):
        checks.add(f"{path}.{_short(name)}", rule)
    return inputs


def _normalised(word: str) -> str:
    folded = " ".join(unicodedata.normalize("NFC", word).split())
    return unicodedata.normalize("NFC", folded.lower())


def _brief(value: Any) -> str:
    """Return a wrong input as the service shows it, in some 40 characters."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**_LONGEST_SHOWN:
        return f"about 2^{value.bit_length()}"
    if isinstance(value, int | float):
        return repr(value)
    return repr(_short(str(value)))


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _broken(word: Any) -> str | None:
    """Return the first rule that a word breaks."""
    if not isinstance(word, str):
        return f"must be text, is {_brief(word)}"
    length = len(word) if len(word) > _LONGEST_RAW else len(_normalised(word))
    if length <= _LONGEST_RAW and has_control_characters(word):
        return "must not contain control characters"
    if not 1 <= length <= _LONGEST_WORD:
        return f"must be 1 to {_LONGEST_WORD} characters, is {length}"
    if not any(c.isalpha() for c in _normalised(word)):
        return f"must have at least one letter, is {_normalised(word)!r}"
    return None
