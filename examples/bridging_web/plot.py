"""Every submit as a dot: typing time across, wait upwards on a logarithmic scale. SVG by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from .submits import Submit, quantile, seconds

_WIDTH, _HEIGHT = 820, 460
_SIZE = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 66, 52
_TICK = 30.0
"""Seconds between two marks of the typing time."""
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-size:16px;font-weight:600}"
    ".m{fill:#57606a}.g{stroke:#d8dee4}.live{fill:#c4432b;stroke:#c4432b}"
    ".ahead{fill:#2f6fde;stroke:#2f6fde}.person{fill-opacity:0}.dot{stroke-width:1.3}"
)


def plot(submits: Sequence[Submit], haiku: str, typing: float) -> str:
    """The picture; typing times are drawn as they were, `typing` times those of people."""
    longest = max(each.typed * typing for each in submits)
    low = math.floor(math.log10(min(each.waited for each in submits)))
    high = math.ceil(math.log10(max(each.waited for each in submits)))
    across = (_WIDTH - _LEFT - _RIGHT) / longest
    upwards = (_HEIGHT - _TOP - _BOTTOM) / (high - low)

    def x(value: float) -> float:
        return _LEFT + value * across

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(value) - low) * upwards

    title = "Wait at submit, with and without a head start"
    about = f"{len(submits)} submits; filled: against {haiku}, hollow: for a person"
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {_SIZE} role="img" aria-label="{title}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text class="t" x="16" y="28">{title}</text>',
        f'<text class="m" x="16" y="48">{escape(about)}</text>',
    ]
    right = _WIDTH - _RIGHT
    for power in range(low, high + 1):
        at = y(10.0**power)
        body.append(f'<line class="g" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        body.append(_muted(_LEFT - 8, at + 4, "end", _power(power)))
    tick = _TICK * typing
    for number in range(int(longest / tick) + 1):
        foot = _HEIGHT - _BOTTOM + 20
        body.append(_muted(x(number * tick), foot, "middle", f"{number * tick:g}"))
    body.append(_muted((_LEFT + right) / 2, _HEIGHT - 12, "middle", "seconds of typing"))
    for each in submits:
        kind = "ahead" if each.head_start else "live"
        person = " person" if each.recipient == "human" else ""
        place = f'cx="{x(each.typed * typing):.1f}" cy="{y(each.waited):.1f}"'
        body.append(f'<circle class="dot {kind}{person}" {place} r="3"/>')
    body += _medians(submits, haiku, y)
    return "\n".join((*body, "</svg>", ""))


def _muted(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="m" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _medians(submits: Sequence[Submit], haiku: str, y: Callable[[float], float]) -> list[str]:
    """The four medians, beside the dots, at least a line apart."""
    found = []
    other = "Haiku" if haiku == "Haiku" else "stand-in"
    for head_start, arm in ((False, "without"), (True, "with")):
        for recipient, to in (("haiku", other), ("human", "person")):
            waits = [
                each.waited
                for each in submits
                if each.head_start is head_start and each.recipient == recipient
            ]
            if waits:
                median = quantile(waits, 0.5)
                kind = "ahead" if head_start else "live"
                found.append((y(median), kind, f"{arm}, {to}: {seconds(median)}"))
    drawn, last = [], -math.inf
    for at, kind, text in sorted(found):
        place = max(at + 4, last + 17)
        last = place
        left = _WIDTH - _RIGHT
        drawn += [
            f'<line class="{kind}" x1="{left}" x2="{left + 10}" y1="{at:.1f}" y2="{at:.1f}"/>',
            f'<text x="{left + 16}" y="{place:.1f}">{escape(text)}</text>',
        ]
    return drawn


def _power(power: int) -> str:
    return f"{10**power:g} s" if power >= 0 else f"{10.0 ** (power + 3):g} ms"
