"""Names of what a generated module has: identifiers, each once, the same in every language."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z0-9]+")
RESERVED: Final = frozenset(
    (
        "Any",
        "AnyRun",
        "Array",
        "BlockingClient",
        "EllipsisType",
        "False",
        "Literal",
        "NonNullable",
        "None",
        "NotRequired",
        "Omit",
        "PrecomputeClient",
        "Promise",
        "ReadOptions",
        "Reader",
        "Results",
        "Sequence",
        "Started",
        "Starter",
        "Tensor",
        "True",
        "TypeAlias",
        "TypedDict",
        "Uint8Array",
        "Union",
        "annotations",
        "bool",
        "bytes",
        "dataclass",
        "dict",
        "float",
        "int",
        "list",
        "str",
        "timedelta",
    )
)
"""Names that generated modules have anyway, in one of the languages."""


def words(text: str) -> list[str]:
    """Return the words of any text that an identifier can have."""
    return _WORD.findall(text)


def type_name(text: str) -> str:
    """Return a class's name for any text."""
    name = "".join(word[:1].upper() + word[1:] for word in words(text))
    return f"T{name}" if name[:1].isdigit() else name or "Value"


def function_word(text: str) -> str:
    """Return what stands behind `start_` in a function's name, for any text."""
    return "_".join(words(text)).lower() or "pipeline"


def identifier(text: str, taken: Iterable[str]) -> str:
    """Return a variable's name for any text, as like it as can be."""
    name = re.sub(r"\W", "_", text)
    if name.startswith("__") or not name:  # Python changes such names inside of a class
        name = f"_{name.strip('_')}"
    if not name.isidentifier():
        name = f"_{name}"
    used = set(taken)
    while name in used or keyword.iskeyword(name):
        name += "_"
    return name


class Names:
    """Gives each thing of a module a name of its own."""

    def __init__(self) -> None:
        self._taken = set(RESERVED)
        self._words: set[str] = set()

    def pipeline(self, name: str) -> tuple[str, str]:
        """Return a pipeline's words for functions and for types."""
        number = 1
        function, kind = function_word(name), type_name(name)
        while {function, kind.lower()} & self._words:
            number += 1
            function, kind = f"{function_word(name)}_{number}", f"{type_name(name)}{number}"
        self._words |= {function, kind.lower()}
        self._taken |= {f"{kind}{suffix}" for suffix in ("Inputs", "Results", "Step")}
        return function, kind

    def type(self, name: str, owner: str) -> str:
        """Return the name of a type, with that of its pipeline before it if it is taken."""
        plain = type_name(name)
        found, number = plain, 1
        while found in self._taken:
            found = f"{owner}{plain}{number if number > 1 else ''}"
            number += 1
        self._taken.add(found)
        return found
