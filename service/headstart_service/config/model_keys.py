"""Reads which language model a worker has, with its key and address, and other APIs' keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..domain.errors import StartupError
from .model_names import ANTHROPIC, ModelName
from .settings import KEYS, Settings, variable


@dataclass(frozen=True, slots=True)
class Access:
    """How a language model is reached."""

    name: ModelName
    api_key: str | None
    base_url: str | None


def named(settings: Settings, name: str) -> ModelName:
    """Return the model that a pipeline names; without a name, that of the settings."""
    if text := name or settings.language_model:
        return ModelName.read(text)
    return ModelName(ANTHROPIC, settings.haiku_model)


def all_named(settings: Settings, names: Iterable[str]) -> list[ModelName]:
    """Return the models that pipelines name, each once; an empty name is that of the settings."""
    return sorted({named(settings, name) for name in names})


def access(settings: Settings, name: ModelName) -> Access:
    """Return how to reach a model. Raises StartupError for a file of a key without one."""
    url: str | None = getattr(settings, f"{name.dialect}_base_url")
    return Access(name, key_of(settings, name.dialect), url)


def key_of(settings: Settings, dialect: str) -> str | None:
    """Return an API's key. Raises StartupError for a file that holds none."""
    return _key(settings, f"{dialect}_api_key")


def embeddings_key(settings: Settings) -> str | None:
    """Return the key of the embeddings endpoint. Raises StartupError for a file without one."""
    return _key(settings, "embeddings_key")


def _key(settings: Settings, field: str) -> str | None:
    key, path = getattr(settings, field), getattr(settings, f"{field}_file")
    if path is None:
        return key.get_secret_value() if key else None
    source = variable(f"{field}_file")
    if key is not None:
        raise StartupError(f"{source}: {variable(field)} is set too: set one of them")
    try:
        text = str(path.read_text().strip())
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StartupError(f"{source}: cannot read {path}: {reason}") from None
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise StartupError(
            f"{source}: {path} must hold a key alone: printable ASCII without spaces"
        )
    return text


def key_mistakes(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the keys' settings."""
    for field in KEYS:
        try:
            _key(settings, field)
        except StartupError as error:
            yield str(error)
