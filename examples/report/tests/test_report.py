from __future__ import annotations

import struct
import zlib

import pytest
from headstart_report import PIPELINE, Month, Summary, chart, png

from headstart import InvalidRequest
from headstart.testing import run_pipeline
from headstart_service.sdk import StepFailed

SALES = [
    {"day": "2026-10-30", "cents": 10_000},
    {"day": "2026-09-01", "cents": 5_000},
    {"day": "2026-10-02", "cents": 10_000},
    {"day": "2026-11-01", "cents": 15_000},
]


def pixels(image: bytes) -> list[bytes]:
    """The rows of a PNG with a palette, read as the specification says."""
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, rest = {}, image[8:]
    while rest:
        size, kind = struct.unpack(">I4s", rest[:8])
        body = rest[8 : 8 + size]
        assert struct.unpack(">I", rest[8 + size : 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind], rest = body, rest[12 + size :]
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    data = zlib.decompress(chunks[b"IDAT"])
    assert len(data) == (width + 1) * height
    return [data[at + 1 : at + 1 + width] for at in range(0, len(data), width + 1)]


async def test_the_table_and_the_image_agree():
    run = await run_pipeline(PIPELINE, {"title": "Autumn", "sales": SALES})
    assert run.status == "completed"
    assert run.values["summary"] == Summary(total_cents=40_000, best_month="2026-10", change=-0.25)
    assert run.values["table"].splitlines()[4:7] == [
        "| 2026-09 | 1 | 50.00 |",
        "| 2026-10 | 2 | 200.00 |",
        "| 2026-11 | 1 | 150.00 |",
    ]
    rows = pixels(run.values["chart"])
    heights = [sum(row[8 + place * 32] == 0 for row in rows) for place in range(3)]
    assert heights == [40, 160, 120]


async def test_without_a_chart_there_is_a_report():
    run = await run_pipeline(
        PIPELINE, {"title": "Losses", "sales": [{"day": "2026-11-01", "cents": -5}]}
    )
    assert run.status == "completed"
    assert run.steps["chart"].error == "there is nothing to draw: no month has sales above 0"
    assert "In all -0.05." in run.values["table"]


def test_a_chart_can_be_drawn_without_a_pipeline():
    months = [Month(name="2026-10", cents=0, sales=1), Month(name="2026-11", cents=1, sales=1)]
    assert pixels(chart(months))[0][8] == 1
    with pytest.raises(StepFailed):
        chart(months=months[:1])


def test_the_image_is_what_was_drawn():
    assert pixels(png([b"\0\1\0", b"\1\1\0"])) == [b"\0\1\0", b"\1\1\0"]


async def test_a_report_about_nothing_is_refused():
    with pytest.raises(InvalidRequest, match=r"custom\.inputs\.sales"):
        await run_pipeline(PIPELINE, {"title": "Nothing", "sales": []})
