from __future__ import annotations

import pytest

from headstart_service.dashboard.failures import FailureLog, reason_of
from headstart_service.domain import RunKey


def add(log: FailureLog, name: str, *errors: str, namespace: str = "shop", at: int = 1) -> None:
    log.add(RunKey(namespace, name), 1, 1, "text", at, *errors)


def test_what_differs_each_time_is_no_part_of_a_reason() -> None:
    assert reason_of("buggy: internal error 0123456789ab") == "buggy: internal error <id>"
    assert reason_of("429 (req_011CQabcdefgh)") == "429 (<request>)"
    assert reason_of("x" * 1000) == "x" * 300


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("s: internal error 0123456789ab", "s: internal error <id>"),
        ("s: internal error 0123456789", "s: internal error 0123456789"),
        ("s: returned 12,345 bytes", "s: returned <size> bytes"),
        ("s: returned at least 9 bytes", "s: returned <size> bytes"),
        ("it would have 1,234; at most", "it would have <size>; at most"),
        ("req_01234567", "<request>"),
        ("req_0123456", "req_0123456"),
        ("id 01234567-89ab-cdef-0123-456789abcdef!", "id <uuid>!"),
        ("id 01234567-89ab-cdef-0123-456789abcde!", "id 01234567-89ab-cdef-0123-456789abcde!"),
    ],
)
def test_ids_and_sizes_make_no_reasons_of_their_own(error: str, reason: str) -> None:
    assert reason_of(error) == reason


def test_failures_are_grouped_with_their_last_keys_and_counted_once() -> None:
    log = FailureLog()
    for number in range(5):
        for _ in range(2):
            add(log, f"k{number}", f"step: internal error {number:012x}", at=number)
    add(log, "ok")
    (group,) = log.groups(None, 10)
    assert (group["count"], group["last_us"]) == (5, 4)
    assert group["keys"] == [["shop", "k4"], ["shop", "k3"], ["shop", "k2"]]


def test_a_namespace_sees_its_own_alone() -> None:
    log = FailureLog()
    add(log, "mine", "a: x", namespace="shop")
    add(log, "theirs", "a: x", namespace="other")
    (group,) = log.groups(frozenset({"shop"}), 10)
    assert (group["count"], group["keys"]) == (1, [["shop", "mine"]])
    (both,) = log.groups(None, 10)
    assert both["count"] == 2


def test_a_thousand_reasons_are_not_all_kept() -> None:
    log = FailureLog()
    for number in range(1000):
        add(log, f"k{number}", f"reason {number}", at=number)
    told = log.groups(None, 10_000)
    assert len(told) == 128
    assert told[0]["reason"] == "reason 999"
