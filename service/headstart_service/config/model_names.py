"""Names of language models, as settings and pipelines write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

ANTHROPIC: Final = "anthropic"
OPENAI: Final = "openai"
DIALECTS: Final = (ANTHROPIC, OPENAI)
"""The APIs that a worker can speak. Limits of providers begin with these names."""
EXTRAS: Final = {ANTHROPIC: "language-model", OPENAI: "openai"}
"""The extra that brings the SDK of each API."""
RULE: Final = "anthropic:MODEL or openai:MODEL, printable and at most 200 characters"
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A language model, and the API that serves it."""

    dialect: str
    model: str

    def __str__(self) -> str:
        return f"{self.dialect}:{self.model}"

    @property
    def provider(self) -> str:
        """What the file of limits, permits and metrics call it."""
        return f"{self.dialect}/{self.model}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a name. Raises ValueError, which names the rule."""
        dialect, _, model = text.partition(":")
        model = model.strip()
        if dialect not in DIALECTS or not model or not text.isprintable() or len(text) > _LONGEST:
            raise ValueError(f"must be {RULE}")
        return cls(dialect, model)


def is_model_name(value: Any) -> Any:
    """Raise ValueError unless this is the name of a language model."""
    return value if value is None else str(ModelName.read(str(value)))
