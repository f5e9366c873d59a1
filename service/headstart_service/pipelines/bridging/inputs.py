"""What a bridging run is given: validated all at once, normalised, the same after a second pass."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from headstart._for_service import suggested

from ...domain import has_control_characters

MAX_WORD_LENGTH = 64
MAX_CLUES = 50
MAX_NULL_SAMPLES = 10_000
_MAX_RAW = 1024
"""Characters of a word before it is normalised. Python takes time by their square to do that: a
request of 4 MB, all combining marks, would hold up everybody for hours."""
_UNKNOWN = "is not an input of this pipeline"
_MAX_ECHO = 40
"""How much of a wrong input a message may repeat."""


def normalise(text: str) -> str:
    """`text` in NFC, trimmed, inner spaces folded to one, in lower case; idempotent."""
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    # Some capitals have a lower case of several code points, which may compose again.
    return unicodedata.normalize("NFC", folded.lower())


class BridgingInputs(BaseModel):
    """A game: two words, the player that answers, and how much to compute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    anchor: str = Field(min_length=1, max_length=MAX_WORD_LENGTH)
    target: str = Field(min_length=1, max_length=MAX_WORD_LENGTH)
    recipient_type: Literal["human", "haiku"]
    clue_count: int = Field(default=5, ge=1, le=MAX_CLUES)
    null_sample_count: int = Field(default=100, ge=1, le=MAX_NULL_SAMPLES)

    @field_validator("anchor", "target", mode="before")
    @classmethod
    def _a_word(cls, value: Any) -> str:
        if not isinstance(value, str):
            # Not a TypeError: pydantic makes violations of ValueErrors only.
            raise ValueError(f"must be text, is {_brief(value)}")  # noqa: TRY004
        if len(value) > _MAX_RAW:
            raise ValueError(f"must be 1 to {MAX_WORD_LENGTH} characters, is {len(value)}")
        if has_control_characters(value):
            raise ValueError("must not contain control characters")
        word = normalise(value)
        if not 1 <= len(word) <= MAX_WORD_LENGTH:
            raise ValueError(f"must be 1 to {MAX_WORD_LENGTH} characters, is {len(word)}")
        if not any(c.isalpha() for c in word):
            raise ValueError(f"must have at least one letter, is {_brief(word)}")
        return word

    @field_validator("target")
    @classmethod
    def _another_word(cls, value: str, info: ValidationInfo) -> str:
        # A model validator would run only after every field is right, but all violations are
        # reported at once. A wrong anchor is absent here.
        if value == info.data.get("anchor"):
            raise ValueError(f"must differ from anchor, both are {_brief(value)}")
        return value

    @field_validator("recipient_type", mode="before")
    @classmethod
    def _a_recipient(cls, value: Any) -> Any:
        if value not in ("human", "haiku"):
            raise ValueError("must be human or haiku")
        return value

    @field_validator("clue_count", mode="before")
    @classmethod
    def _clues(cls, value: Any) -> int:
        return _whole_number(value, MAX_CLUES)

    @field_validator("null_sample_count", mode="before")
    @classmethod
    def _samples(cls, value: Any) -> int:
        return _whole_number(value, MAX_NULL_SAMPLES)

    @model_validator(mode="wrap")
    @classmethod
    def _plain_messages(
        cls, value: Any, handler: ModelWrapValidatorHandler[BridgingInputs]
    ) -> BridgingInputs:
        """Say in our own words what pydantic finds missing or unknown."""
        try:
            return handler(value)
        except ValidationError as error:
            found = error.errors(include_url=False)
            unknown = [d["loc"][0] for d in found if d["type"] == "extra_forbidden"]
            rules = suggested(_UNKNOWN, map(str, unknown), BridgingInputs.model_fields)
            details = [_reworded(detail, rules) for detail in found]
            raise ValidationError.from_exception_data(error.title, details) from None


def _reworded(detail: Any, unknown: Iterator[str]) -> InitErrorDetails:
    """The error in our own words; `unknown` has the rule of each unknown input, in their order."""
    location = tuple(_brief(part, quoted=False) for part in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "missing":
        message = "must be human or haiku" if location == ("recipient_type",) else "is required"
    elif detail["type"] == "extra_forbidden":
        message = next(unknown)
    # As an argument, so that braces in the message are not taken for placeholders.
    error = PydanticCustomError("bridging_input", "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=location, input=None)


def _whole_number(value: Any, highest: int) -> int:
    # A protobuf Struct knows only floats; bool is an int to Python, not to a caller.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        rule = f"must be a whole number, 1 to {highest}, is {_brief(value)}"
        raise ValueError(rule)  # noqa: TRY004 - pydantic makes violations of ValueErrors only
    if not 1 <= value <= highest:
        raise ValueError(f"must be 1 to {highest}, is {_brief(value)}")
    return value


def _brief(value: Any, *, quoted: bool = True) -> str:
    """What was given, in `_MAX_ECHO` printable characters or so."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**_MAX_ECHO:
        # Python refuses to spell integers of thousands of digits.
        return f"about 2^{value.bit_length()}"
    if isinstance(value, (int, float)):
        return repr(value)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    if len(text) > _MAX_ECHO:
        text = text[: _MAX_ECHO - 1] + "…"
    return repr(text) if quoted else text
