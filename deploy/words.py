"""Check the language of pages, and with `--python` of texts and names in code.

Prints `file:line: rule: sentence: what to write instead`, and exits 1 if there is any.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 25
_CODE = "service/headstart_service", "client/headstart", "examples"
_LOGS = {"debug", "info", "warning", "error", "exception", "critical"}
_SUBJECT = r"\b(?:it|code|process|server|client|worker|service|store|API|Redis|log|page|script)"
RULES = (
    (
        re.compile(r"(?:^|[,;:] )who (?!are you)", re.IGNORECASE),
        "name the subject: 'callers that ...'",
    ),
    (
        re.compile(r"\b(?:is|are|was|were|be) told\b", re.IGNORECASE),
        "write 'receives', 'reports' or 'gets'",
    ),
    (re.compile(r"\bhears?\b", re.IGNORECASE), "write 'receives'"),
    (
        re.compile(rf"{_SUBJECT}s? (?:looks?|tells?|says?|sees)\b", re.IGNORECASE),
        "write 'reads', 'reports'",
    ),
    (
        re.compile(r"\b(?:nobody|somebody|whoever)\b", re.IGNORECASE),
        "name the subject: caller, process",
    ),
)
_DIRECTIVE = re.compile(r"#!|# (?:noqa|type:|pragma|ruff:|mypy:)")
_PRIVATE = re.compile(
    r"(?:^|_)(?:told|hears?|heard|said|tells?|looks|asked|servicer|figures|pace)(?:_|$)"
)


def sentences(text: str, line: int = 1) -> Iterator[tuple[int, str]]:
    """Yield each sentence of a text in Markdown, with its line; not code or headings.

    Each cell of a table is a text of its own.
    """
    block: list[tuple[int, str]] = []
    fenced = False
    for number, content in enumerate([*text.splitlines(), ""], line):
        fence = content.lstrip().startswith("```")
        fenced ^= fence
        item = re.match(r"\s*(?:[-*]|\d+\.)\s+", content)
        prose = content.strip() and not fenced and not fence
        if prose and content.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", re.sub(r"``?[^`]+``?", "CODE", content)):
                yield from _split([(number, cell)])
        prose = prose and not re.match(r"\s*(?:\||#|<|!\[|>>>|    )", content)
        if item or not prose:
            yield from _split(block)
            block = []
        if prose:
            block.append((number, content[item.end() :] if item else content))


def _split(block: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    words = [
        (number, word)
        for number, content in block
        for word in re.sub(
            r"!?\[([^\]]*)\]\([^)]*\)",
            lambda link: link[1].replace(" ", "\N{NO-BREAK SPACE}"),
            re.sub(r"``?[^`]+``?", "CODE", content),
        ).split(" ")
        if word
    ]
    start = 0
    for end, (_, word) in enumerate(words, 1):
        if end == len(words) or re.search(r"[.!?][*)\"']*$", word):
            yield words[start][0], " ".join(each for _, each in words[start:end])
            start = end


def faults(text: str, line: int = 1) -> Iterator[tuple[int, str]]:
    """Yield line and message of each sentence that breaks a rule."""
    for number, sentence in sentences(text, line):
        count = sum(1 for word in sentence.split(" ") if re.search(r"\w", word))
        if count > LONGEST:
            yield number, f"length: {sentence}: {count} words, at most {LONGEST}: split it"
        for pattern, instead in RULES:
            if found := pattern.search(sentence):
                yield number, f"word '{found[0].strip(' ,;:')}': {sentence}: {instead}"


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield docstrings, comments and the text of raised errors, log messages and argparse help."""
    yield from _comments(source)
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for before, after in pairwise(body if isinstance(body, list) else ()):
            match before, after:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(ast.Constant(str(written))):
                    yield after.lineno, inspect.cleandoc(written)
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if (written := ast.get_docstring(node)) is not None:
                    yield node.body[0].lineno, written
            case ast.Raise(exc=ast.Call(args=args)):
                yield from map(_literal, args)
            case ast.Call(func=ast.Attribute(attr=name), args=[first, *_]) if name in _LOGS:
                yield _literal(first)
            case ast.keyword(arg="help" | "description" | "epilog", value=value):
                yield _literal(value)


def _literal(node: ast.expr) -> tuple[int, str]:
    match node:
        case ast.Constant(value=str(value)):
            return node.lineno, value
        case ast.JoinedStr(values=values):
            parts = (each.value if isinstance(each, ast.Constant) else "X" for each in values)
            return node.lineno, "".join(map(str, parts))
    return node.lineno, ""


def _comments(source: str) -> Iterator[tuple[int, str]]:
    block: list[str] = []
    above = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line, column = token.start
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        if block and above != (line - 1, column):
            yield above[0] - len(block) + 1, "\n".join(block)
            block = []
        block.append(token.string.removeprefix("#").removeprefix(" "))
        above = line, column
    if block:
        yield above[0] - len(block) + 1, "\n".join(block)


def names(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and message of each name that the code defines with a private word in it.

    Fields of pydantic's models are left out: they are names of the wire.
    """
    wire: set[ast.expr] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(bases=[ast.Name("BaseModel")], body=body):
                wire |= {each.target for each in body if isinstance(each, ast.AnnAssign)}
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.alias(asname=str(name))
                | ast.MatchAs(name=str(name))
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
                private = _PRIVATE.search(words) or name.strip("_") in {"PLACES", "ELSEWHERE"}
                if private and node not in wire:
                    yield node.lineno, f"name '{name}': name the thing: 'lines', 'reported'"


def main() -> int:
    """Print every fault and return 1 if there is one; `--count` prints the number per file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="store_true", help="check Python instead of pages")
    parser.add_argument("--count", action="store_true", help="print the number of faults per file")
    parser.add_argument("paths", nargs="*", type=Path, help="files to check instead of all")
    options = parser.parse_args()
    if options.python:
        every = [
            path
            for code in _CODE
            for path in sorted((ROOT / code).rglob("*.py"))
            if "v1" not in path.parts
        ]
    else:
        every = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    counts: Counter[str] = Counter()
    for path in options.paths or every:
        content = path.read_text()
        every_text = texts(content) if options.python else [(1, content)]
        found = [fault for line, text in every_text for fault in faults(text, line)]
        name = str(path.resolve().relative_to(ROOT))
        for number, message in sorted([*found, *(names(content) if options.python else ())]):
            counts[name] += 1
            if not options.count:
                print(f"{name}:{number}: {message}")
    if options.count:
        for name, count in counts.most_common():
            print(f"{count:5} {name}")
    print(f"{counts.total()} faults", file=sys.stderr)
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
