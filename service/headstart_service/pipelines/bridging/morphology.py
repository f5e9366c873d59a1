"""Which words are forms of each other, so that "oceans" is no clue for "ocean".

Two words are variants when

1. they have the same stem by the Snowball English stemmer ("Porter2",
   https://snowballstem.org/algorithms/english/stemmer.html): ocean, oceans, oceanic;
2. or the same irregular word behind them: wolf, wolves; swim, swum (`irregular.py`);
3. or one is the other, or the other's stem, with a suffix of the list below. Examples: forest,
   forestry; sun, sunny (a doubled letter); bake, bakery (a dropped e); mercy, merciful (y became
   i); history, historic (a dropped y).

Prefixes do not count (deforestation is no variant of forest), nor do compounds (rainforest).
By letters alone they do not differ from accidents such as liver and deliver.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol, cast

import snowballstemmer

from .irregular import ACCIDENTS, LEMMAS

# The shortest word that each suffix is taken off. Short suffixes end many words by accident.
_SUFFIXES: dict[str, int] = {
    **dict.fromkeys(("ness", "less", "ful", "ship", "hood", "dom", "ward", "wards", "ly"), 3),
    **dict.fromkeys(("wise", "like", "ment", "ation", "ion", "ist", "er", "est", "or"), 3),
    **dict.fromkeys(("ology", "ologist", "ography", "ographer", "eer", "ism", "ize", "ise"), 4),
    **dict.fromkeys(("ify", "able", "ible", "age", "ance", "ence", "ish", "ive", "ous"), 4),
    **dict.fromkeys(("al", "ial", "an", "ian", "ic", "en", "ee", "ry", "ery", "y", "th"), 4),
}
_DOUBLED_MINIMUM = 3
"""A doubled letter is a sign of its own, so three letters are enough: sun, sunny."""
_DROPS_LAST_VOWEL = frozenset(("ic", "ist", "ian", "ize", "ise"))
"""Suffixes before which y and o may go, in longer words: history, historic; volcano, volcanic."""
_VOWELS = frozenset("aeiouy")
_PARTS = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str:  # noqa: N802 - the library's name
        ...


class _PerThread(threading.local):
    """A stemmer for each thread: it keeps the word it works on in itself."""

    def __init__(self) -> None:
        self.stemmer = cast("_Stemmer", snowballstemmer.stemmer("english"))


_per_thread = _PerThread()


class _Forms(NamedTuple):
    own: frozenset[str]
    """The word, its stem, and the stems of the irregular words behind it."""
    bases: frozenset[str]
    """What it may be derived from, existing words or not."""


def is_variant(a: str, b: str) -> bool:
    """Whether lower-case `a` and `b` are forms of one word, or one is derived from the other."""
    return _related(_forms(a), _forms(b).own, _forms(b).bases)


class Exclusions:
    """Words that a bridge may not use, and their variants; grows with the bridge.

    A text of several words stands for each of them, and so do the parts of a hyphenated word.
    Asking costs the same however many words are excluded.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Exclude the lower-case `texts` and all their variants."""
        self._own: set[str] = set()
        self._bases: set[str] = set()
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Exclude `text` and its variants too."""
        for part in _parts(text):
            forms = _forms(part)
            self._own |= forms.own
            self._bases |= forms.bases

    def excludes(self, word: str) -> bool:
        """Whether the lower-case `word` is, or has a part that is, excluded."""
        return any(_related(_forms(part), self._own, self._bases) for part in _parts(word))


def _related(forms: _Forms, own: AbstractSet[str], bases: AbstractSet[str]) -> bool:
    # Two equal bases prove nothing: they need not be words.
    return not (
        forms.own.isdisjoint(own) and forms.own.isdisjoint(bases) and forms.bases.isdisjoint(own)
    )


def _parts(text: str) -> set[str]:
    return {text, *_PARTS.findall(text)}


@functools.lru_cache(maxsize=16_384)
def _forms(word: str) -> _Forms:
    word = word.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    stem = _stem(word)
    lemmas = LEMMAS.get(word, frozenset())
    own = {word, stem, *lemmas, *map(_stem, lemmas)}
    # Farmers is derived from farm as farmer is, and forestries as forestry.
    spellings = {word, stem}
    if stem.endswith("i"):
        spellings.add(stem[:-1] + "y")
    bases = {base for spelling in spellings for base in _bases(spelling)}
    for accident in (other for spelling in spellings for other in ACCIDENTS.get(spelling, ())):
        bases -= {accident, _stem(accident)}
    return _Forms(frozenset(own), frozenset(bases))


def _stem(word: str) -> str:
    return _per_thread.stemmer.stemWord(word)


def _bases(word: str) -> set[str]:
    found: set[str] = set()
    for suffix, minimum in _SUFFIXES.items():
        if not word.endswith(suffix):
            continue
        rest = word[: -len(suffix)]
        on_vowel = suffix[0] in _VOWELS
        # A base that ends in e drops it before a vowel, so care gives carer and never career.
        if len(rest) >= minimum and not (on_vowel and rest.endswith("e")):
            found.add(rest)
        if on_vowel and len(rest) + 1 >= minimum:
            found.add(rest + "e")
        if on_vowel and len(rest) > _DOUBLED_MINIMUM and _is_doubled(rest):
            found.add(rest[:-1])
        if suffix in _DROPS_LAST_VOWEL and len(rest) > minimum:
            found |= {rest + "y", rest + "o"}
        if rest.endswith("i") and len(rest) >= max(minimum, 4):
            found.add(rest[:-1] + "y")
    return found


def _is_doubled(rest: str) -> bool:
    return rest[-1] == rest[-2] and rest[-1] not in _VOWELS
