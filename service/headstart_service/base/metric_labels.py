"""The values that labels of metrics take, where one room observes them and another counts them."""

from __future__ import annotations

from enum import StrEnum


class ResultsOutcome(StrEnum):
    """How GetResults answered a call."""

    READY = "ready"
    """All requested results existed when the call came."""
    WAITED = "waited"
    """Everything was there before the wait was over."""
    PARTIAL = "partial"
    """Some of it was not: its step has not ended, has failed or was skipped."""
    MISSING = "missing"
    """Nothing is kept under the key."""


class Eviction(StrEnum):
    """Why a run is no longer kept, in the order in which scripts count them."""

    READ = "read"
    """It made room after it was read."""
    UNREAD = "unread"
    """It made room before it was read."""
    NAMESPACE = "namespace"
    """It made room for another run of its namespace, whose share was full."""
    EXPIRED = "expired"
    """Its time to live was over."""


class MemoLookup(StrEnum):
    """How the lookup of a memo ended; all but HIT let the step be computed."""

    HIT = "hit"
    MISS = "miss"
    DAMAGED = "damaged"
    AWAY = "away"


class TextSource(StrEnum):
    """Where the embedding of a text came from."""

    VOCABULARY = "vocabulary"
    REMEMBERED = "remembered"
    MODEL = "model"


class BatchEnd(StrEnum):
    """How a call of a language model ends that went into a batch."""

    ANSWERED = "answered"
    LATE = "late"
    """The batch had not ended in time; the call was then made directly."""
    FAILED = "failed"
    """The API took no batch, or gave no answer; the call was then made directly."""
    LEFT = "left"
    """Its run was cancelled, replaced or handed on."""
