"""A report with a chart while the user still chooses where to send it.

The page starts a run when the dialog opens. The chart is drawn in a process of its own: Python
that computes would keep a worker's other steps waiting. Without it the report has its table.
"""

from __future__ import annotations

import struct
import zlib
from datetime import date

from pydantic import BaseModel, Field

from headstart_service.sdk import Pipeline, StepFailed, step

_BAR, _GAP, _HEIGHT = 24, 8, 160
_INK, _PAPER = 0, 1
"""Places in the chart's palette."""
_PALETTE = bytes((0x1F, 0x5A, 0xA8, 0xFF, 0xFF, 0xFF))


class Sale(BaseModel, extra="forbid"):
    """A line of the books."""

    day: date
    cents: int = Field(ge=-(10**12), le=10**12)


class Inputs(BaseModel, extra="forbid"):
    """What the report is about."""

    title: str = Field(min_length=1, max_length=200)
    sales: list[Sale] = Field(min_length=1, max_length=20_000)


class Month(BaseModel):
    """The sales of a month, as 2026-11."""

    name: str
    cents: int
    sales: int


class Summary(BaseModel):
    """What a reader wants first."""

    total_cents: int
    best_month: str
    change: float | None
    """How the last month compares with the one before: 0.1 for a tenth more. None without one."""


@step(required=True, runs_on="thread")
def months(sales: list[Sale]) -> list[Month]:
    """The sums of each month that has sales, in order."""
    found: dict[str, Month] = {}
    for sale in sales:
        name = f"{sale.day:%Y-%m}"
        month = found.setdefault(name, Month(name=name, cents=0, sales=0))
        month.cents += sale.cents
        month.sales += 1
    return [found[name] for name in sorted(found)]


@step(required=True)
async def summary(months: list[Month]) -> Summary:
    """The figures above the chart."""
    change = None
    if len(months) > 1 and months[-2].cents > 0:
        change = round(months[-1].cents / months[-2].cents - 1, 4)
    return Summary(
        total_cents=sum(month.cents for month in months),
        best_month=max(months, key=lambda month: month.cents).name,
        change=change,
    )


@step(timeout=20, runs_on="process")
def chart(months: list[Month]) -> bytes:
    """A bar for each month, as PNG."""
    most = max(month.cents for month in months)
    if most <= 0:
        raise StepFailed("there is nothing to draw: no month has sales above 0", retry=False)
    heights = [max(0, round(_HEIGHT * month.cents / most)) for month in months]
    width = _GAP + len(heights) * (_BAR + _GAP)
    rows = []
    for level in range(_HEIGHT, 0, -1):
        row = bytearray([_PAPER]) * width
        for place, height in enumerate(heights):
            if height >= level:
                left = _GAP + place * (_BAR + _GAP)
                row[left : left + _BAR] = bytes([_INK]) * _BAR
        rows.append(bytes(row))
    return png(rows)


@step(required=True)
async def table(title: str, months: list[Month], summary: Summary) -> str:
    """The report as Markdown: what is sent if the chart is late."""
    lines = [f"# {title}", "", "| month | sales | sum |", "|---|---|---|"]
    lines += [f"| {m.name} | {m.sales} | {m.cents / 100:,.2f} |" for m in months]
    return "\n".join([*lines, "", f"In all {summary.total_cents / 100:,.2f}."])


def png(rows: list[bytes]) -> bytes:
    """Return an image of one byte a pixel, a place in the palette, by the PNG specification."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


PIPELINE = Pipeline(
    name="report",
    version="1",
    description="A report with a chart, while the user chooses where to send it",
    inputs=Inputs,
    steps=(months, summary, chart, table),
)
