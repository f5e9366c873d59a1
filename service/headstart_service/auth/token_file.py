"""The file of tokens: one line each, read at the start and again whenever it changes.

    # name   digest of the token      namespaces     verbs
    shop     sha256:<64 hex digits>   shop,default   read,write
    ops      sha256:<64 hex digits>   *              admin
    scraper  sha256:<64 hex digits>   *              metrics
    signer   hmac:<64 hex digits>     *              sign

The last line is no token but a key, with which the server signs tokens for one run.

No message quotes a line: it may hold the token itself.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..config.reloaded_file import ReloadedFile, text_of
from ..domain import namespace_violations
from ..domain.errors import StartupError
from .grants import (
    Grant,
    Grants,
    Verb,
    digest_of,
)
from .run_tokens import RunTokens

TOKEN_PREFIX: Final = "hst_"  # noqa: S105  # what makes a leaked token easy to find, no token itself
EVERY: Final = "*"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME_RULE: Final = "the name must be 1 to 64 letters, digits, '.', '_' and '-'"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_KEY = re.compile(r"hmac:([0-9a-f]{64})")
SIGN: Final = "sign"
"""In place of verbs: a line with a key for tokens of one run."""
_COLUMNS: Final = 4


def new_key_line(name: str) -> str:
    """Return the line of a new key for tokens of one run. Raises ValueError for a wrong name."""
    line = f"{name} hmac:{secrets.token_hex(32)} {EVERY} {SIGN}"
    _run_key(line)
    return line


def run_keys(text: str) -> list[bytes]:
    """Return the keys for tokens of one run, the signing one first; `parsed` has checked them."""
    return [key for line in text.split("\n") if (key := _run_key(line)) is not None]


def _run_key(line: str) -> bytes | None:
    """Return the key of a line; None for any other line. Raises ValueError for a wrong one."""
    columns = line.split()
    if line.lstrip().startswith("#") or len(columns) < 2 or not columns[1].startswith("hmac:"):  # noqa: PLR2004
        return None
    if not (found := _KEY.fullmatch(columns[1])):
        raise ValueError("the key must be hmac: and 64 hexadecimal digits in lower case")
    if columns[2:] != [EVERY, SIGN]:
        raise ValueError(f"a key has the namespaces {EVERY} and the verb {SIGN} alone")
    if not _NAME.fullmatch(columns[0]):
        raise ValueError(_NAME_RULE)
    return bytes.fromhex(found[1])


def new_token() -> str:
    """Return a token of 256 random bits behind a prefix that scanners can find."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def line_of(name: str, token: str, namespaces: Sequence[str], verbs: Sequence[str]) -> str:
    """The line that grants a token these. Raises ValueError for what `parsed` would refuse."""
    if not _NAME.fullmatch(name):  # behind a space, a reader would find another column
        raise ValueError(_NAME_RULE)
    line = f"{name} sha256:{digest_of(token).hex()} {','.join(namespaces)} {','.join(verbs)}"
    _parsed_line(line)
    return line


def parsed(text: str, path: Path) -> dict[bytes, Grant]:
    """The grants by their tokens' digests. Raises StartupError that names the line."""
    grants: dict[bytes, Grant] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if _run_key(line) is not None:
                continue
            digest, grant = _parsed_line(line)
            if digest in grants:
                raise ValueError(f"is the same token as line {lines[grants[digest].name]}")
            if grant.name in lines:
                raise ValueError(
                    f"has the same name as line {lines[grant.name]}: delete one of the two"
                )
        except ValueError as error:
            raise StartupError(f"HEADSTART_TOKENS: {path} line {number}: {error}") from None
        grants[digest] = grant
        lines[grant.name] = number
    if not grants:
        raise StartupError(
            f"HEADSTART_TOKENS: {path} holds no token: `headstart token NAME` makes one"
        )
    return grants


def _parsed_line(line: str) -> tuple[bytes, Grant]:
    columns = line.split()
    if len(columns) != _COLUMNS:
        raise ValueError(f"must be: name, digest, namespaces, verbs; has {len(columns)} of these")
    name, digest, namespaces, verbs = columns
    if not _NAME.fullmatch(name):
        raise ValueError(_NAME_RULE)
    if not (found := _DIGEST.fullmatch(digest)):
        raise ValueError("the digest must be sha256: and 64 hexadecimal digits in lower case")
    granted = _verbs(verbs)
    places = _namespaces(namespaces)
    for verb in (Verb.ADMIN, Verb.METRICS):
        if verb in granted and places is not None:
            raise ValueError(f"{verb} is for every namespace, so its namespaces must be {EVERY}")
    return bytes.fromhex(found[1]), Grant(name, places, granted)


def _verbs(text: str) -> frozenset[Verb]:
    try:
        return frozenset(Verb(verb) for verb in text.split(","))
    except ValueError:
        rule = f"the verbs must be of {', '.join(Verb)}, separated by commas"
        key = f"or {SIGN} alone, in a line that `headstart token NAME --verbs {SIGN}` makes"
        raise ValueError(f"{rule}, {key}") from None


def _namespaces(text: str) -> frozenset[str] | None:
    if text == EVERY:
        return None
    names = text.split(",")
    for name in names:
        for violation in namespace_violations(name):
            raise ValueError(f"a namespace {violation.description}; {EVERY} alone is every one")
    return frozenset(names)


class TokenFile:
    """The file, and the grants that it held when it was last right."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises StartupError."""
        self.grants = Grants({})
        self._file = ReloadedFile(path, self._accept, "tokens")
        self.watch = self._file.watch
        self.look = self._file.look

    @property
    def refusals(self) -> int:
        """How often what was new could not be read."""
        return self._file.refusals

    def _accept(self, path: Path) -> None:
        text = text_of(path, "HEADSTART_TOKENS")
        grants, run_tokens = parsed(text, path), RunTokens(run_keys(text))
        self.grants.replace(grants, run_tokens)
