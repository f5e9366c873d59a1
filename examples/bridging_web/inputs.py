"""What the application is sent. What is wrong with it becomes a 422 that names each field."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool
from pydantic_core import PydanticCustomError

from headstart_service.domain import has_control_characters
from headstart_service.pipelines.bridging.inputs import BridgingInputs, normalise
from headstart_service.pipelines.bridging.morphology import Exclusions

MAX_CLUE = 64
"""Characters of a clue, as of an anchor."""
_MAX_CLUES = 50


class NewGame(BridgingInputs):
    """A game, by the rules of the bridging pipeline, and whether it gets a head start."""

    head_start: StrictBool = True

    def game(self) -> BridgingInputs:
        """What the pipeline is given."""
        return BridgingInputs.model_validate(self.model_dump(exclude={"head_start"}))


def _clue(text: str) -> str:
    if not 1 <= len(text.strip()) <= MAX_CLUE:
        raise _wrong(f"must be 1 to {MAX_CLUE} characters, is {len(text.strip())}")
    if has_control_characters(text):
        raise _wrong("must not contain control characters")
    if not any(c.isalpha() for c in text):
        raise _wrong("must have at least one letter")
    return normalise(text)


class NewClues(BaseModel):
    """What a player submits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clues: list[Annotated[str, AfterValidator(_clue)]] = Field(min_length=1, max_length=_MAX_CLUES)


def refused(game: BridgingInputs, clues: list[str]) -> list[tuple[int, str]]:
    """The clues that break a rule of this game: place, and what is wrong.

    No form of the anchor, the target or an earlier clue is a clue, as for Haiku's bridge.
    """
    found = []
    for place, clue in enumerate(clues):
        if place >= game.clue_count:
            found.append((place, f"must be one of at most {game.clue_count} clues"))
        elif Exclusions((game.anchor, game.target)).excludes(clue):
            found.append((place, "must not be a form of the anchor or the target"))
        elif Exclusions(clues[:place]).excludes(clue):
            found.append((place, "must not be a form of an earlier clue"))
    return found


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("clue", "{message}", {"message": message})
