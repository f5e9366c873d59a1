"""What becomes of sums on their way out of Redis."""

from __future__ import annotations

from headstart_service.store.accounting import book_from


def test_what_a_damaged_record_has_brought_in_is_passed_over() -> None:
    sums = [b"starts", b"3", b"hidden_us/\xef\xff", b"5", b"waited_us", b"many", b"hidden_us", b"7"]
    book = book_from(sums, 1)
    assert book == {"starts": 3, "hidden_us": 7, "open": 1}
