"""Find the licence of everything that runs in production, in its own metadata: `make licences`."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from typing import NamedTuple

from .pins import CONSTRAINTS, needed, pins

ALLOWED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
        *("CNRI-Python", "HPND", "ISC", "LLVM-exception", "MIT", "MPL-1.1", "MPL-2.0"),
        *("PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    }
)
"""Licences under which a service may use a library unchanged, at no duty but to name it."""
_EXTRAS = "model,embedded,tracing"
_SAYS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mit + mpl 1.1/gpl 2.0/lgpl 2.1": "MIT AND (MPL-1.1 OR GPL-2.0 OR LGPL-2.1)",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
"""What metadata say instead of an SPDX identifier."""


class Licence(NamedTuple):
    """A distribution's licence as an SPDX expression; empty if it names none that is known."""

    name: str
    version: str
    expression: str

    @property
    def allowed(self) -> bool:
        """Whether every licence of an AND, and one of each OR, is."""
        parts = re.sub(r"[()]", " ", self.expression)
        if not parts.strip():
            return False
        return all(
            any(word.strip() in ALLOWED for word in re.split(r"\bOR\b", each))
            for each in re.split(r"\bAND\b|\bWITH\b", parts)
        )


def licences() -> list[Licence]:
    """Of all runtime dependencies, by name."""
    pinned = pins(CONSTRAINTS)
    names = sorted(needed(_EXTRAS))
    return [Licence(name, pinned.get(name, "?"), _expression(name)) for name in names]


def table() -> str:
    """Return a Markdown table of every distribution with its version and licence."""
    rows = (f"| {name} | {version} | {said or '?'} |\n" for name, version, said in licences())
    return "| distribution | version | licence |\n|---|---|---|\n" + "".join(rows)


def _expression(name: str) -> str:
    metadata = distribution(name).metadata
    if said := metadata.get("License-Expression"):
        return said
    # Some put the licence's whole text in this field.
    short = (metadata.get("License") or "").strip()
    if " AND " in (said := _SAYS.get(short.lower(), "")):
        return said  # its classifier names the first one alone
    classifiers = [
        classifier.rpartition(" :: ")[2]
        for classifier in metadata.get_all("Classifier") or []
        if classifier.startswith("License :: OSI Approved :: ")
    ]
    for text in (short, *classifiers):
        known = _SAYS.get(text.lower(), text)
        if known in ALLOWED and (known != "BSD" or text is classifiers[-1]):
            return known
    return _by_its_file(name) or (short if "\n" not in short else "")


def _by_its_file(name: str) -> str:
    """Return the licence that the first line of its licence file names; empty if it names none."""
    found = distribution(name)
    for file in found.files or []:
        if file.name.upper().startswith("LICENSE"):
            first = file.read_text().strip().partition("\n")[0].strip().lower()
            return _SAYS.get(first, "")
    return ""


if __name__ == "__main__":
    print(table(), end="")
