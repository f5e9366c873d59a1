"""A bridge by a language model: two requests at most, each answer checked, none invented."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from ...sdk import LanguageModel, StepFailed
from .inputs import normalise
from .morphology import Exclusions
from .prompt import SYSTEM, Clues, max_tokens, user_prompt

MAX_CLUE_LENGTH = 30
_SPARE = 3
"""Asked for beyond what is needed, because some clues break a rule."""
_MAX_REFUSED = 20
"""How many refused clues the second request names."""
_MAX_READ = 200
"""Clues of an answer that are looked at: one of millions must not hold up its reader."""
_SINGLE_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


class Checked(NamedTuple):
    """What was good in an answer, and what was not."""

    valid: list[str]
    refused: list[str]
    """Only those that are single words: other text of the model is not to be repeated."""


async def ask_for_clues(
    model: LanguageModel, anchor: str, target: str, count: int
) -> Sequence[str]:
    """`count` valid clues by `model`, best first.

    When its answer has too few, a second request names the clues that were refused. Raises
    StepFailed when there are too few even then, and whatever `model` raises.
    """
    clues: list[str] = []
    refused: list[str] = []
    for _ in range(2):
        wanted = count - len(clues) + _SPARE
        answer = await model.parse(
            system=SYSTEM,
            prompt=user_prompt(anchor, target, wanted, clues, refused),
            output=Clues,
            max_tokens=max_tokens(wanted),
        )
        checked = check_clues(answer.clues, anchor, target, clues)
        clues += checked.valid
        refused = checked.refused[:_MAX_REFUSED]
        if len(clues) >= count:
            return clues[:count]
    raise StepFailed(
        f"the language model gave only {len(clues)} valid clues in two requests, and {count} "
        "were asked for"
    )


def check_clues(
    raw: Iterable[str], anchor: str, target: str, accepted: Iterable[str] = ()
) -> Checked:
    """Sort `raw` clues into valid and refused ones, normalised, in their order.

    A valid clue is a single word of 1 to 30 characters (Latin letters, inner hyphens and
    apostrophes). It is no variant of `anchor`, `target`, an `accepted` clue or a valid one before.
    """
    excluded = Exclusions((anchor, target, *accepted))
    checked = Checked([], [])
    for text in islice(raw, _MAX_READ):
        word = normalise(text[: 4 * MAX_CLUE_LENGTH]).replace(
            "\N{RIGHT SINGLE QUOTATION MARK}", "'"
        )
        if len(word) > MAX_CLUE_LENGTH or not _SINGLE_WORD.fullmatch(word) or not _is_latin(word):
            continue
        if excluded.excludes(word):
            checked.refused.append(word)
        else:
            checked.valid.append(word)
            excluded.add(word)
    return checked


def _is_latin(word: str) -> bool:
    """Whether its letters are what they look like: no other script's, which could spell the anchor.

    Nor letters that are mere shapes of others, as in mathematics or ligatures.
    """
    return word.isascii() or (
        unicodedata.normalize("NFKC", word) == word
        and all(unicodedata.name(c, "").startswith("LATIN ") for c in word if c.isalpha())
    )
