"""Line charts as SVG, written by hand as the bars are: a panel a unit, a line a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from ..results import Line, Result

_WIDTH, _LEFT, _RIGHT, _PLOT = 760, 76, 24, 180
_HEAD, _FOOT = 56, 62
_LEGEND_ROW = 20
_COLOURS = ("#2f6fde", "#d1652b", "#1a7f37", "#8250df", "#9aa5b5", "#b08800")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-size:16px;font-weight:600}"
    ".n{font-size:11px;fill:#57606a}"
)
_DECADES = 20
"""A range that is wider than this is drawn on a logarithmic axis."""
Scale = Callable[[float], float]


def line_chart(result: Result, size: str) -> str:
    """A curve's panels. The horizontal axis is logarithmic and marks each size that was measured.

    The thin line on a point reaches from the lowest sample to the highest.
    """
    points = [line for line in result.lines if line.size is not None]
    body: list[str] = []
    y = _HEAD
    for unit in dict.fromkeys(line.unit for line in points):
        y = _panel(body, [line for line in points if line.unit == unit], size, y)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="{escape(result.title)}"><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>'
        f'<text class="t" x="16" y="30">{escape(result.title)}</text>'
    )
    return "\n".join((head, *body, "</svg>", ""))


def _panel(body: list[str], points: Sequence[Line], size: str, top: int) -> int:
    """Draw one; gives where the next begins."""
    traces = {title: [p for p in points if p.title == title] for title in _titles(points)}
    top = _legend(body, list(traces), top)
    across, ticks = _across(sorted({p.size for p in points if p.size is not None}))
    up, marks, kind = _up([sample for p in points for sample in p.contender.samples], top)
    bottom = top + _PLOT
    for mark in marks:
        y = up(mark)
        body.append(
            f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d8dee4"/>'
            f'<text class="n" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_short(mark)}</text>"
        )
    for tick in ticks:
        x = across(tick)
        body.append(
            f'<path d="M{x:.1f} {top}V{bottom + 4}" stroke="#eaeef2"/>'
            f'<text class="n" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{_short(tick)}</text>"
        )
    for colour, line in zip(_COLOURS, traces.values(), strict=False):
        _trace(body, line, colour, across, up)
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    body.append(
        f'<text class="n" x="{middle}" y="{bottom + 36}" text-anchor="middle">'
        f"{escape(size)} (logarithmic)</text>"
        f'<text class="n" transform="translate(16 {top + _PLOT / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(points[0].unit)}{kind}</text>'
    )
    return bottom + _FOOT


def _titles(points: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(point.title for point in points))


def _legend(body: list[str], titles: Sequence[str], top: int) -> int:
    """Two traces a row; gives where the plot begins."""
    width = (_WIDTH - _LEFT - _RIGHT) // 2
    for place, (colour, title) in enumerate(zip(_COLOURS, titles, strict=False)):
        x, y = _LEFT + place % 2 * width, top + place // 2 * _LEGEND_ROW
        body.append(
            f'<rect x="{x}" y="{y - 7}" width="16" height="4" fill="{colour}"/>'
            f'<text x="{x + 24}" y="{y}">{escape(title)}</text>'
        )
    return top + -(-len(titles) // 2) * _LEGEND_ROW


def _trace(body: list[str], points: Sequence[Line], colour: str, across: Scale, up: Scale) -> None:
    places = [(across(p.size or 0), p.contender) for p in points]
    path = " ".join(f"{x:.1f},{up(series.median):.1f}" for x, series in places)
    body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for x, series in places:
        low, high = up(min(series.samples)), up(max(series.samples))
        body.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
            f'<circle cx="{x:.1f}" cy="{up(series.median):.1f}" r="3.5" fill="{colour}"/>'
        )


def _across(sizes: Sequence[float]) -> tuple[Scale, Sequence[float]]:
    """The horizontal axis. Nothing has no logarithm: it stands a step left of the smallest size."""
    some = [size for size in sizes if size > 0]
    step = some[1] / some[0] if len(some) > 1 else 10
    least = some[0] / step if sizes[0] == 0 else some[0]
    width = math.log(some[-1] / least) or 1
    room = _WIDTH - _LEFT - _RIGHT - 40

    def place(size: float) -> float:
        return _LEFT + 20 + room * math.log(max(size, least) / least) / width

    return place, sizes


def _up(samples: Sequence[float], top: int) -> tuple[Scale, Sequence[float], str]:
    """The vertical axis: linear from nothing, or logarithmic where the range is wide."""
    highest, lowest = max(samples), min(samples)
    if lowest > 0 and highest / lowest > _DECADES:
        least, most = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))

        def logarithmic(value: float) -> float:
            share = (math.log10(max(value, 10.0**least)) - least) / (most - least)
            return top + _PLOT * (1 - share)

        return logarithmic, [10.0**n for n in range(least, most + 1)], " (logarithmic)"
    step = _round_up(highest / 4 or 1)
    most_linear = step * math.ceil(highest / step or 1)

    def linear(value: float) -> float:
        return top + _PLOT * (1 - max(value, 0) / most_linear)

    return linear, [step * n for n in range(round(most_linear / step) + 1)], ""


def _round_up(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return next(n * decade for n in (1, 2, 2.5, 5, 10) if n * decade >= value * 0.999)


def _short(value: float) -> str:
    if value >= 1e6:  # noqa: PLR2004
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"  # noqa: PLR2004
