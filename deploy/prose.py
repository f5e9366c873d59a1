"""Checks the language of pages and docstrings: short sentences, plain words. `make lint` runs it.

    python -m deploy.prose [--python] [PATH ...]

The rules are those of CONTRIBUTING: a sentence has at most 25 words, code acts by plain verbs, and
nobody is called "who" without a noun. Each finding has its file and line, and what to write instead.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONGEST: Final = 25
"""Words of a sentence. A code span or a link counts as one."""

WORDS: Final = {
    r"\b(is|are|was|be|been|being) told\b": "receives, gets, is given",
    r"\btells?\b(?! (apart|them apart))": "returns, reports, shows",
    r"\b(hears?|heard)\b": "receives",
    r"(?<![\w-])(looks|looking|looked) (at|for|after|into)\b": "reads, checks, searches",
    r"\bthe (code|script|worker|server|client|log|page|reply|answer|message|record) says\b":
        "returns, reports, contains",
    r"(?:^|[.:;,(] |\b(?:and|or|but|of|for|to|by|if|than|that) )[Ww]ho\b(?! (?:is|are|was|were) )":
        "a noun: a caller that …, an operator who …",
    r"\b(whom|whoever|whomever)\b": "a noun: the caller, the worker",
    r"\ball of it\b(?= (?:holds|stays))": "everything",
}
"""What must not stand in a sentence, as a pattern, and what to write instead."""

_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_SPAN: Final = re.compile(r"`[^`]+`")
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ENDS: Final = re.compile(r"(?<=[.!?])[*\"')\]]*\s+(?=[\"'(*\[`A-Z0-9])|(?<=:)\s*$")
_ABBREVIATIONS: Final = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|approx|No)\.")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|“[^”]*”")


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence that breaks a rule."""

    path: str
    line: int
    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}\n    {self.sentence}"


def findings(path: str, blocks: Iterable[tuple[int, str]]) -> Iterator[Finding]:
    """Yield what is wrong with blocks of text, each with the number of its first line."""
    for line, text in blocks:
        for sentence in sentences(text):
            words = len(sentence.split())
            if words > LONGEST:
                yield Finding(path, line, f"{words} words, at most {LONGEST}: split it", sentence)
            unquoted = _QUOTED.sub("…", sentence)
            for pattern, instead in WORDS.items():
                if found := re.search(pattern, unquoted):
                    rule = f'"{found[0].strip(" .:;,(")}": write {instead}'
                    yield Finding(path, line, rule, sentence)


def sentences(text: str) -> Iterator[str]:
    """Split a block into sentences, with each code span and each link as one word."""
    plain = _LINK.sub("LINK", _SPAN.sub("CODE", " ".join(text.split())))
    plain = _ABBREVIATIONS.sub(r"\1", plain)
    for part in _ENDS.split(plain):
        # Items of a sentence that lists them are read one by one.
        yield from (item.strip() for item in re.split(r";\s+|:\s+(?=[a-zA-Z])| — ", part) if item.strip())


def markdown_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield paragraphs and list items with their first line; no code, tables, headings or HTML."""
    block: list[str] = []
    first, fenced = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
        starts = re.match(r"\s*([-*]|\d+\.)\s+", line)
        apart = fenced or _FENCE.match(line) or not line.strip()
        if block and (apart or starts or line.lstrip().startswith(("|", "#", "<"))):
            yield first, " ".join(block)
            block = []
        if apart or line.lstrip().startswith(("|", "#", "<", "[!")):
            continue
        if not block:
            first = number
        block.append(line[starts.end() :] if starts else line)
    if block:
        yield first, " ".join(block)


def python_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield a module's docstrings, its texts under names, and the texts of errors and log lines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                for paragraph in re.split(r"\n\s*\n", node.value.value):
                    if not re.search(r"^\s{8,}\S|::\s*$|^\s*[|>$]", paragraph, re.MULTILINE):
                        yield node.lineno, paragraph
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from _texts(node.exc.args)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"debug", "info", "warning", "error", "exception"}:
                yield from _texts(node.args[:1])
            help_text = [k.value for k in node.keywords if k.arg in {"help", "description"}]
            yield from _texts(help_text)


def _texts(nodes: Iterable[ast.expr]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def main(arguments: list[str] | None = None) -> int:
    """Print every finding; return how the process ends: 0 if there is none, else 1."""
    parser = argparse.ArgumentParser(description="Check the language of pages and docstrings.")
    parser.add_argument("--python", action="store_true", help="check Python sources, too")
    parser.add_argument("paths", nargs="*", help="files to check instead of all that git tracks")
    options = parser.parse_args(arguments)
    paths = options.paths or _tracked(python=options.python)
    found: list[Finding] = []
    for path in paths:
        text = Path(path).read_text(encoding="utf-8")
        blocks = python_blocks(text) if path.endswith(".py") else markdown_blocks(text)
        found += findings(path, blocks)
    for finding in found:
        print(finding)
    if found:
        print(f"{len(found)} sentences to mend; the rules are in deploy/prose.py", file=sys.stderr)
    return 1 if found else 0


def _tracked(*, python: bool) -> list[str]:
    """Return the pages, and with `python` the sources of client and service, that git tracks."""
    patterns = ["*.md", *(["client/headstart/*.py", "service/*.py"] if python else [])]
    listed = subprocess.run(
        ["git", "ls-files", *patterns], check=True, capture_output=True, text=True
    ).stdout.split()
    return [path for path in listed if "/v1/" not in path and not path.startswith("CHANGELOG")]


if __name__ == "__main__":
    sys.exit(main())
