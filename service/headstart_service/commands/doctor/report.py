"""What a check has found, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ...base.escaping import escaped
from ...base.output import COLOURS, coloured


class Verdict(StrEnum):
    """How a check went; the worst decides the exit code."""

    OK = "OK"
    WARN = "WARN"
    """It works, and something should be looked at."""
    FAIL = "FAIL"
    """It does not work."""
    SKIP = "SKIP"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    """What to do, unless all is well."""


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, found)


def warn(name: str, found: str, advice: str) -> Check:
    """Something should be looked at."""
    return Check(name, Verdict.WARN, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """It does not work."""
    return Check(name, Verdict.FAIL, found, advice)


def skip(name: str, found: str, advice: str = "") -> Check:
    """It could not be looked at."""
    return Check(name, Verdict.SKIP, found, advice)


def line(check: Check) -> str:
    """A finding as people read it, and what to do in a line below."""
    verdict = coloured(f"{check.verdict:<4}", COLOURS[check.verdict])
    text = f"{verdict}  {check.name:<11}  {escaped(check.found)}"
    if check.advice and check.verdict is not Verdict.OK:
        text += f"\n{'':19}→ {escaped(check.advice)}"
    return text


def summary(checks: Sequence[Check]) -> str:
    """How many there are of each."""
    counts = dict.fromkeys(Verdict, 0)
    for check in checks:
        counts[check.verdict] += 1
    names = {"OK": "fine", "WARN": "to look at", "FAIL": "wrong", "SKIP": "not checked"}
    return ", ".join(f"{count} {names[verdict]}" for verdict, count in counts.items() if count)
