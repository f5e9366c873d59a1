"""Which words a vocabulary is made of: the most frequent English ones, or the operator's own."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..base.extras import install
from ..domain.errors import PackageMissing, StartupError

DEFAULT_COUNT = 30_000
MIN_LETTERS, MAX_LETTERS = 3, 25
MIN_WORDS = 10
"""Of one's own: fewer make no bridge of five words that are no variants of each other."""
_MAX_OWN_LENGTH = 64
_MAX_OWN_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """Where a vocabulary's words come from."""

    name: str
    """Identifies the words: equal names, equal words."""
    words: Callable[[], Sequence[str]]
    """Gets them. May take a second, and raise StartupError."""

    @classmethod
    def frequent(cls, count: int = DEFAULT_COUNT) -> Self:
        """The `count` most frequent English words of the dictionary."""
        return cls(f"wordfreq en {count}, hunspell en_US", lambda: default_words(count))

    @classmethod
    def file(cls, path: Path) -> Self:
        """The words of a file, one a line. Raises StartupError when it cannot be read."""
        content = _read(path)
        name = f"file sha256:{hashlib.sha256(content).hexdigest()}"
        return cls(name, lambda: _parse(content, path))


def default_words(count: int = DEFAULT_COUNT) -> list[str]:
    """The `count` most frequent English words of 3 to 25 letters, nothing but letters, lower case.

    By the frequencies of wordfreq (https://github.com/rspeer/wordfreq), the most frequent first.
    Only words that Hunspell's en_US dictionary (http://wordlist.aspell.net, which the package
    chunspell brings) has in lower case: no names, no brands. Raises StartupError when a package is
    missing or fewer words are known.
    """
    try:
        from hunspell import Hunspell
        from wordfreq import top_n_list
    except ImportError as error:
        raise PackageMissing(
            f"building a vocabulary needs {error.name}, which is not installed: {install('worker')}"
        ) from error
    has, requested = Hunspell("en_US").spell, count
    while True:
        # Numbers, contractions and short words are dropped, so read more than are wanted.
        requested *= 2
        known = top_n_list("en", requested)
        words = [word for word in known if _is_plain(word) and has(word)][:count]
        if len(words) == count:
            return words
        if len(known) < requested:
            raise StartupError(f"only {len(words)} such words are known, not {count}")


def _is_plain(word: str) -> bool:
    # The dictionary is in Latin-1, and has no other letters.
    return (
        word.isascii()
        and word.isalpha()
        and MIN_LETTERS <= len(word) <= MAX_LETTERS
        and word == word.lower()
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_OWN_BYTES + 1)
    except OSError as error:
        raise StartupError(f"cannot read the words of {path}: {error.strerror}") from error
    if len(content) > _MAX_OWN_BYTES:
        raise StartupError(f"{path} has more than {_MAX_OWN_BYTES} bytes: is it a list of words?")
    return content


def _parse(content: bytes, path: Path) -> list[str]:
    """The words of a UTF-8 file, one a line, normalised to NFC and lower case, each once.

    Blank lines are passed over. Raises StartupError that names the line and the rule it breaks.
    """
    words: dict[str, None] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise StartupError(f"{path}, line {number}: must be UTF-8") from error
        word = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.strip()).lower())
        if not word:
            continue
        if len(word) > _MAX_OWN_LENGTH:
            raise StartupError(
                f"{path}, line {number}: must be 1 to {_MAX_OWN_LENGTH} characters, is {len(word)}"
            )
        if not any(c.isalpha() for c in word) or not all(
            c.isalpha() or c in "-'\N{RIGHT SINGLE QUOTATION MARK}" for c in word
        ):
            raise StartupError(
                f"{path}, line {number}: must be one word of letters (hyphens and apostrophes may "
                f"be inside), is {word!r}"
            )
        words[word] = None
    if len(words) < MIN_WORDS:
        raise StartupError(
            f"{path} must have {MIN_WORDS} or more different words, has {len(words)}"
        )
    return list(words)
