"""The settings of language models: `settings.Settings` has a field of each."""

from __future__ import annotations

from typing import Any, Final

from pydantic import AliasChoices, Field

HAIKU_MODEL: Final[Any] = Field(
    "claude-haiku-5-5",
    min_length=1,
    description="Anthropic model of steps that take `language_model`, where "
    "HEADSTART_LANGUAGE_MODEL names none.",
)
LANGUAGE_MODEL: Final[Any] = Field(
    None,
    description="Language model of steps that take `language_model`, unless their pipeline names "
    "another.",
)
WARM_MODELS: Final[Any] = Field(
    True,
    description="Whether a worker opens a connection to each language model when it starts, by a "
    "call that costs nothing.",
)


KEY_FILE: Final = "File that holds this key, instead; read when a worker starts."
_KEYS: Final = {
    "anthropic": "Key of the Anthropic API, without which its models fail.",
    "openai": "Key of the OpenAI API; other servers of that API may need none.",
}
_ADDRESSES: Final = {
    "anthropic": "Another address of the Anthropic API.",
    "openai": "Address of a server with OpenAI's API, such as `http://localhost:11434/v1`.",
}


def api_key(dialect: str) -> Any:
    """Return the field of an API's key."""
    return _own(f"{dialect}_api_key", _KEYS[dialect])


def api_key_file(dialect: str) -> Any:
    """Return the field of the file that holds an API's key."""
    return _own(f"{dialect}_api_key_file", KEY_FILE)


def base_url(dialect: str) -> Any:
    """Return the field of an API's address."""
    return _own(f"{dialect}_base_url", _ADDRESSES[dialect])


def _own(name: str, meaning: str) -> Any:
    """Return a field whose variable has the API's name in front, as its SDK has it."""
    return Field(None, validation_alias=AliasChoices(name, name.upper()), description=meaning)
