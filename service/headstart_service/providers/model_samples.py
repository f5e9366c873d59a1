"""The texts by which an export is compared with sentence-transformers."""

# ruff: noqa: RUF001  # these letters are what is tried

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

COUNT: Final = 500

_EMPTY: Final = (
    "",
    " ",
    "\n\t",
    "\u00a0",
    "\u200b",
    ".",
    "-",
    "…",
    "'",
    "\u0301",
    "😀",
    "a",
    "A",
    "0",
)
_WORDS: Final = (
    *("ocean", "winter", "music", "lighthouse", "reconciliation", "zeitgeist", "café", "naïve"),
    *("don't", "mother-in-law", "C++", "iPhone", "NATO", "ICE", "ice", "3.14159", "1,000,000"),
    *("running", "ran", "Xylophone", "qwrtzpsdf", "antidisestablishmentarianism", "e-mail"),
)
_SCRIPTS: Final = (
    *(
        "море и зима",
        "θάλασσα",
        "海と冬の音楽",
        "大海",
        "바다 음악",
        "بحر الشتاء",
        "ים וחורף",
        "समुद्र और संगीत",
    ),
    *(
        "ทะเลฤดูหนาว",
        "Straße über Öl",
        "Žluťoučký kůň",
        "Đường phố",
        "ﬁne ligature",
        "ＦＵＬＬ ｗｉｄｔｈ",
    ),
    *("👩‍👩‍👧 family", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "e\u0301tude", "İstanbul", "ß", "שלום hello مرحبا"),
)
_SENTENCES: Final = (
    "The user begins a task, and the service computes what the submit will need.",
    "What connects the ocean with a winter evening?",
    'He said: "It\'s 20 °C - or 68 °F - outside."',
    "see https://example.org/a?b=c&d=%20 or write to someone@example.org",
    "SELECT name FROM games WHERE key = 'game-1'; -- a comment",
    "ALL CAPITALS, THEN none.",
    "line one\nline two\r\nline three\t(tabbed)",
    "Ein Satz mit Umlauten: Größe, Äpfel, Übung.",
)


def sample_texts(longest: int) -> Sequence[str]:
    """Return 500 texts, the same each time: words, sentences, other scripts, empty and long ones.

    The longest have more than `longest` words, and so more tokens than that.
    """
    draw = random.Random(0)  # noqa: S311  # no secret
    every = [*_WORDS, *_SCRIPTS, *_SENTENCES]
    texts = [*_EMPTY, *every]
    texts += [f" {text}  " for text in every]
    texts += [" ".join(draw.choices(_WORDS, k=longest + extra)) for extra in (0, 1, 50)]
    texts += [" ".join(draw.choices(_SCRIPTS, k=longest))]
    while len(texts) < COUNT:
        texts.append(" ".join(draw.choices(every, k=draw.choice((2, 2, 3, 3, 5, 8, 20)))))
    return texts
