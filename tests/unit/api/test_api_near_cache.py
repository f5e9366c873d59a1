from __future__ import annotations

import time

import pytest

from headstart_service.api.results.answer import Answer
from headstart_service.api.results.near_cache import OVERHEAD, NearCache
from headstart_service.domain import RunKey

A, B, C = (RunKey("default", name) for name in "abc")


def answer(size: int = 10, *, final: bool = True, lives_for: float = 60.0, run: str = "run-1"):
    return Answer(b"x" * size, "test", 1, run, final, {}, lives_for)


def cache_for(*sizes: int) -> NearCache:
    """An open cache that holds answers of just these sizes."""
    cache = NearCache(sum(size + OVERHEAD for size in sizes))
    cache.open()
    return cache


def keep(cache: NearCache, key: RunKey, kept: Answer) -> None:
    cache.put(key, kept, cache.moment, time.monotonic())


def test_an_answer_is_kept_and_found_again() -> None:
    cache, kept = cache_for(10), answer()
    assert cache.get(A) is None
    keep(cache, A, kept)
    assert cache.get(A) is kept
    assert cache.get(B) is None


def test_whether_an_answer_is_of_another_run_than_one_that_was_announced_is_known() -> None:
    cache = cache_for(10)
    assert not cache.keeps_other(A, "run-2"), "nothing is kept"
    keep(cache, A, answer())
    assert cache.keeps_other(A, "run-2")
    assert not cache.keeps_other(A, "run-1")


def test_the_least_recently_used_goes_when_there_is_no_room() -> None:
    cache = cache_for(10, 10)
    keep(cache, A, answer())
    keep(cache, B, answer())
    assert cache.get(A)
    keep(cache, C, answer())
    assert cache.get(B) is None
    assert cache.get(A)
    assert cache.get(C)
    assert len(cache) == 2


def test_a_large_answer_pushes_out_as_many_as_it_takes() -> None:
    cache = cache_for(100, 100, 100)
    for key in (A, B):
        keep(cache, key, answer(100))
    keep(cache, C, answer(2 * 100 + OVERHEAD))
    assert cache.get(A) is None
    assert cache.get(B)
    assert cache.get(C)


def test_an_answer_larger_than_the_cache_is_not_kept_and_pushes_nothing_out() -> None:
    cache = cache_for(10)
    keep(cache, A, answer())
    keep(cache, B, answer(11))
    assert cache.get(A)
    assert cache.get(B) is None


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = NearCache(0)
    cache.open()
    keep(cache, A, answer(0))
    assert len(cache) == 0


def test_many_small_answers_are_bounded_too() -> None:
    cache = NearCache(100 * 1024)
    cache.open()
    for number in range(1000):
        keep(cache, RunKey("default", str(number)), answer(1))
    assert 10 < len(cache) < 100


def test_replacing_and_dropping_give_their_room_back() -> None:
    cache = cache_for(10, 10)
    for _ in range(5):
        keep(cache, A, answer())
    cache.drop(A)
    cache.drop(A)
    keep(cache, B, answer())
    keep(cache, C, answer())
    assert len(cache) == 2


def test_an_answer_goes_when_its_run_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_for(10)
    keep(cache, A, answer(lives_for=60.0))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 59)
    assert cache.get(A)
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert cache.get(A) is None
    assert len(cache) == 0


def test_what_has_not_ended_or_has_expired_is_not_kept() -> None:
    cache = cache_for(10)
    keep(cache, A, answer(final=False))
    keep(cache, A, answer(lives_for=0.0))
    assert len(cache) == 0


def test_what_is_dropped_while_it_is_read_is_never_kept() -> None:
    cache = cache_for(10)
    moment = cache.moment
    cache.drop(A)
    cache.put(A, answer(), moment, time.monotonic())
    cache.put(B, answer(), moment, time.monotonic())
    assert cache.get(A) is None
    assert cache.get(B)


def test_a_read_that_began_after_a_drop_is_kept() -> None:
    cache = cache_for(10)
    old = cache.moment
    cache.drop(A)
    cache.put(A, answer(run="run-2"), cache.moment, time.monotonic())
    cache.put(A, answer(), old, time.monotonic())
    kept = cache.get(A)
    assert kept is not None
    assert kept.run == "run-2"


def test_a_read_so_long_ago_that_drops_are_forgotten_is_not_kept() -> None:
    cache = cache_for(10)
    moment = cache.moment
    for number in range(5000):
        cache.drop(RunKey("default", str(number)))
    cache.put(A, answer(), moment, time.monotonic())
    assert cache.get(A) is None
    cache.put(A, answer(), cache.moment, time.monotonic())
    assert cache.get(A)


def test_nothing_is_kept_while_announcements_may_be_missed() -> None:
    cache = NearCache(10_000)
    keep(cache, A, answer())
    assert len(cache) == 0, "not open yet"
    cache.open()
    keep(cache, A, answer())
    moment = cache.moment
    cache.close()
    assert cache.get(A) is None
    assert cache.size == 0
    cache.open()
    cache.put(B, answer(), moment, time.monotonic())
    assert len(cache) == 0, "the drop may have been announced while it was closed"
    keep(cache, C, answer())
    assert cache.get(C)


def test_a_read_that_began_before_the_cache_opened_is_not_kept() -> None:
    cache = NearCache(10_000)
    moment = cache.moment
    cache.open()
    cache.put(A, answer(), moment, time.monotonic())
    assert len(cache) == 0


def test_a_section_that_is_closed_keeps_nothing_and_others_keep_theirs() -> None:
    cache = NearCache(1_000_000, lambda key: int(key == B))
    for section in (0, 1):
        cache.open(section)
    for key in (A, B, C):
        keep(cache, key, answer())
    cache.close(1)
    assert [cache.get(key) is not None for key in (A, B, C)] == [True, False, True]
    assert cache.size == 2 * (10 + OVERHEAD)
    keep(cache, B, answer())
    assert cache.get(B) is None
    cache.open(1)
    keep(cache, B, answer())
    assert cache.get(B) is not None
    cache.close_all()
    assert (len(cache), cache.size) == (0, 0)
