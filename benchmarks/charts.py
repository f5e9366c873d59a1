"""Bar charts as SVG, written by hand: a benchmark should not bring a plotting library along."""

from __future__ import annotations

from html import escape

from .results import TIMES, Line, Result, Series, Verdict

_WIDTH, _LEFT, _RIGHT = 760, 250, 130
_BAR, _GAP, _HEAD, _LINE_HEAD = 18, 8, 56, 26
_COLOURS = {"contender": "#2f6fde", "reference": "#9aa5b5"}
_VERDICTS = {Verdict.REACHED: "#1a7f37", Verdict.WITHIN_NOISE: "#9a6700", Verdict.MISSED: "#cf222e"}
_STYLE = "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-size:16px;font-weight:600}"


def bar_chart(result: Result) -> str:
    """A figure's lines: each a bar for the contender, one for the reference, and its target.

    A bar is a median, the thin line on it reaches from the lowest sample to the highest, and the
    dashed mark is where the contender's bar must reach to, or end.
    """
    body: list[str] = []
    y = _HEAD
    for line in result.lines:
        y = _draw_line(body, line, y)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="{escape(result.title)}"><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>'
        f'<text class="t" x="16" y="30">{escape(result.title)}</text>'
    )
    return "\n".join((head, *body, "</svg>", ""))


def _draw_line(body: list[str], line: Line, y: int) -> int:
    """Draw one; gives where the next begins."""
    series = [("contender", line.contender)]
    if line.reference is not None:
        series.append(("reference", line.reference))
    mark = _mark(line)
    highest = max([max(s.samples) for _, s in series] + ([mark] if mark is not None else [])) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / highest
    title = f"{line.title}, {line.unit}"
    body.append(f'<text x="16" y="{y}">{escape(title)}</text>')
    if line.target is not None:
        said = f"{line.value:.3g}{TIMES if line.reference else ''}, must be {line.target}: "
        body.append(
            f'<text x="{_WIDTH - 16}" y="{y}" text-anchor="end" '
            f'style="fill:{_VERDICTS[line.verdict]}">{said}{line.verdict}</text>'
        )
    top = y + 10
    for kind, each in series:
        _draw_bar(body, each, kind, top, scale)
        top += _BAR + _GAP
    if mark is not None:
        x = _LEFT + mark * scale
        body.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 6}" y2="{top - _GAP + 4}" '
            'stroke="#24292f" stroke-width="1.5" stroke-dasharray="4 3"/>'
        )
    return top + _LINE_HEAD


def _draw_bar(body: list[str], series: Series, kind: str, top: int, scale: float) -> None:
    width, middle = series.median * scale, top + _BAR / 2
    end, base = _LEFT - 10, middle + 4.5
    low, high = (_LEFT + value * scale for value in (min(series.samples), max(series.samples)))
    colour, value = _COLOURS[kind], _short(series.median)
    body += [
        f'<text x="{end}" y="{base}" text-anchor="end">{escape(series.name)}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#24292f"/>',
        f'<text x="{max(_LEFT + width, high) + 8:.1f}" y="{base}">{value}</text>',
    ]


def _mark(line: Line) -> float | None:
    """Where the contender's bar must reach to, or may reach to at most."""
    if line.target is None:
        return None
    return line.target.bound * (line.reference.median if line.reference else 1)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004
