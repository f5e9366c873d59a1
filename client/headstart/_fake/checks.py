"""What `headstart.testing.fake_server` refuses: the service's rules, with the service's words."""

from __future__ import annotations

import base64
import binascii
import math
import re
import time
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from headstart._errors import InvalidRequest, Violation
from headstart._errors.suggestions import unknown_among
from headstart._messages.inputs import InputsError, inputs_of
from headstart.v1 import precompute_pb2 as pb

MAX_WAIT: Final = 600.0
DEFAULT_PAGE: Final = 100
MIN_TTL: Final = 0.001
WEEK: Final = 7 * 24 * 3600.0
_MAX_KEY_BYTES: Final = 256
_MAX_PAGE: Final = 1000
_MAX_REPEATED: Final = 1000
_FOREIGN: Final = "is not a next_page_token of this method"
_NAME: Final = "name:"
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PIPELINE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATUSES: Final = frozenset(pb.PrecomputeStatus.values()) - {0}


class Checks:
    """Collects the rules that one request breaks, because the service reports all at once."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, rule: str) -> None:
        """Note a rule that a field breaks."""
        self.violations.append(Violation(field, rule))

    def refuse(self) -> None:
        """Raise InvalidRequest if a rule was broken."""
        if self.violations:
            raise InvalidRequest("", self.violations)

    def run_key(self, request: Any) -> tuple[str, str]:
        """Return the namespace and key that a request is about."""
        namespace = request.namespace or "default"
        self.namespace(namespace)
        self.key("key", request.key)
        return namespace, request.key

    def namespace(self, namespace: str) -> None:
        """Return a namespace that was named."""
        if not _NAMESPACE.fullmatch(namespace):
            rule = "must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '-' and ':'"
            self.add("namespace", rule)

    def seconds(self, message: Any, field: str, low: float, high: float) -> float | None:
        """Return a duration in seconds; None if it is absent."""
        if not message.HasField(field):
            return None
        duration = getattr(message, field)
        value: float = duration.seconds + duration.nanos / 1e9
        if not low <= value <= high:
            self.add(field, f"must be {low:g} to {high:g} seconds, is {value:.15g}")
        return value

    def repeated(self, field: str, values: Sequence[object]) -> bool:
        """Return whether a list is not too long."""
        if len(values) > _MAX_REPEATED:
            self.add(field, f"must be at most {_MAX_REPEATED}, are {len(values)}")
        return len(values) <= _MAX_REPEATED

    def cursors(self, request: Any, keys: Sequence[str] = ()) -> None:
        """Refuse partial cursors that no answer can have given."""
        given = request.partial_cursors
        self.repeated("partial_cursors", given)
        if given and not request.partial_results:
            self.add("partial_cursors", "must be empty without partial_results")
        for place, each in enumerate(given[:_MAX_REPEATED]):
            where = f"partial_cursors[{place}]"
            if not each.step:
                self.add(f"{where}.step", "must be given")
            for name in ("generation", "offset"):
                if (value := getattr(each, name)) < 0:
                    self.add(f"{where}.{name}", f"must be 0 or more, is {value}")
            if keys and each.key not in keys:
                self.add(f"{where}.key", "must be one of keys")
            elif not keys and each.key:
                self.add(f"{where}.key", "must be empty without keys")

    def batch(self, field: str, items: Sequence[object]) -> None:
        """Refuse a batch without items, or with too many."""
        if not 1 <= len(items) <= _MAX_REPEATED:
            self.add(field, f"must be 1 to {_MAX_REPEATED}, are {len(items)}")

    def keys(self, request: Any) -> None:
        """Refuse keys of many runs that break a rule."""
        self.batch("keys", request.keys)
        self.namespace(request.namespace or "default")
        for place, key in enumerate(request.keys[:_MAX_REPEATED]):
            self.key(f"keys[{place}]", key)

    def key(self, field: str, key: str) -> None:
        """Refuse a key that breaks a rule."""
        size = len(key.encode())
        if not 1 <= size <= _MAX_KEY_BYTES:
            self.add(field, f"must be 1 to {_MAX_KEY_BYTES} bytes, is {size}")
        elif has_control_characters(key):
            self.add(field, "must not contain control characters")

    def page_size(self, value: int) -> None:
        """Refuse a page that is too large, or has a negative size."""
        if not 0 <= value <= _MAX_PAGE:
            self.add("page_size", f"must be 1 to {_MAX_PAGE}, or 0 for the default, is {value}")

    def revision(self, field: str, value: int) -> None:
        """Refuse a negative revision; 0 means any."""
        if value < 0:
            self.add(field, f"must be 1 or more, or 0 for any, is {value}")


def checked_key(request: Any) -> tuple[str, str]:
    """Return the namespace and key of a plain request. Raises InvalidRequest."""
    checks = Checks()
    place = checks.run_key(request)
    checks.refuse()
    return place


def times_of_start(
    request: pb.StartPrecomputeRequest, checks: Checks
) -> tuple[float | None, float]:
    """Return the requested `ttl`, if any, and `expected_need_in`, 0 if absent."""
    return ttl_of(request, checks), checks.seconds(request, "expected_need_in", 0, WEEK) or 0.0


def ttl_of(
    request: pb.StartPrecomputeRequest | pb.TouchPrecomputeRequest, checks: Checks
) -> float | None:
    """Return the requested `ttl`, if any."""
    return checks.seconds(request, "ttl", MIN_TTL, WEEK)


def request_id_of_start(request: pb.StartPrecomputeRequest, checks: Checks) -> str:
    """Return the id of a start; empty if it has none."""
    if request.request_id and not _REQUEST_ID.fullmatch(request.request_id):
        checks.add("request_id", "must be 1 to 64 letters, digits, '.', '_' and '-', or empty")
    return request.request_id


def run_and_revision(
    request: pb.CancelPrecomputeRequest | pb.DeletePrecomputeRequest,
) -> tuple[str, str, int]:
    """Return a request's namespace, key and revision. Raises InvalidRequest."""
    checks = Checks()
    namespace, key = checks.run_key(request)
    checks.revision("revision", request.revision)
    checks.refuse()
    return namespace, key, request.revision


def custom_inputs(request: pb.StartPrecomputeRequest, checks: Checks) -> dict[str, Any] | None:
    """Return the inputs of a pipeline that is called by its name; None if they are unusable."""
    try:
        return inputs_of(request.custom)
    except InputsError as error:
        for rule in error.rules:
            checks.add(*rule)
        return None


def elapsed_of_report(request: pb.ReportStepRequest, checks: Checks) -> float:
    """Return how long a step took its caller, in seconds."""
    return checks.seconds(request, "elapsed", 0, WEEK) or 0.0


def wait_of(request: pb.GetResultsRequest, checks: Checks) -> float:
    """Return how long a reader wants to wait, in seconds."""
    checks.repeated("required_steps", request.required_steps)
    checks.repeated("result_steps", request.result_steps)
    checks.revision("min_revision", request.min_revision)
    return checks.seconds(request, "wait", 0, MAX_WAIT) or 0.0


def check_steps(request: Any, has: set[str], known: set[str]) -> None:
    """Raise InvalidRequest for a request's steps that neither the run nor its pipeline has."""
    checks = Checks()
    for field in ("required_steps", "result_steps"):
        steps = getattr(request, field, ())
        if not has.issuperset(steps):
            for place, rule in unknown_among(steps, known | has):
                checks.add(f"{field}[{place}]", rule)
    checks.refuse()


def checked_watch(request: pb.WatchResultsRequest) -> tuple[str, str]:
    """Return the namespace and key of a watch of one run. Raises InvalidRequest."""
    checks = Checks()
    place = checks.run_key(request)
    checks.repeated("result_steps", request.result_steps)
    checks.cursors(request)
    checks.refuse()
    return place


def made_up_token(request: pb.CreateRunTokenRequest) -> pb.CreateRunTokenResponse:
    """Return a token for one run that nothing checks. Raises InvalidRequest."""
    checks = Checks()
    namespace, key = checks.run_key(request)
    ttl = checks.seconds(request, "ttl", 1.0, 24 * 3600.0)
    checks.refuse()
    answer = pb.CreateRunTokenResponse(token=f"hsr_fake.{namespace}.{key}")
    ends = time.time() + (3600.0 if ttl is None else ttl)
    answer.expires_at.FromMilliseconds(round(ends * 1000))
    return answer


def page_of(request: pb.ListPrecomputesRequest) -> tuple[int, tuple[str, str] | None]:
    """Return a page's size, and the run behind which it begins. Raises InvalidRequest."""
    checks = Checks()
    if request.namespace:
        checks.namespace(request.namespace)
    checks.page_size(request.page_size)
    after = None
    if request.page_token:
        after = _from_page_token(request.page_token)
        if after is None:
            checks.add("page_token", _FOREIGN)
    if checks.repeated("statuses", request.statuses):
        for place, number in enumerate(request.statuses):
            if number not in _STATUSES:
                checks.add(f"statuses[{place}]", f"is no status: {number}")
    _check_filters(request, checks)
    checks.refuse()
    return request.page_size or DEFAULT_PAGE, after


def _check_filters(request: pb.ListPrecomputesRequest, checks: Checks) -> None:
    prefix = request.key_prefix
    if prefix and not request.namespace:
        checks.add("key_prefix", "needs a namespace")
    if (size := len(prefix.encode())) > _MAX_KEY_BYTES:
        checks.add("key_prefix", f"must be at most {_MAX_KEY_BYTES} bytes, is {size}")
    elif has_control_characters(prefix):
        checks.add("key_prefix", "must not contain control characters")
    if request.pipeline and not _PIPELINE.fullmatch(request.pipeline):
        checks.add("pipeline", "is no name that a pipeline can have")


def pipelines_page_of(request: pb.ListPipelinesRequest) -> tuple[int, str]:
    """Return a page's size, and the name behind which it begins. Raises InvalidRequest."""
    checks = Checks()
    checks.page_size(request.page_size)
    text = _decoded(request.page_token)
    if request.page_token and not text.startswith(_NAME):
        checks.add("page_token", _FOREIGN)
    checks.refuse()
    return request.page_size or DEFAULT_PAGE, text.removeprefix(_NAME)


def name_token(name: str) -> str:
    """Return the token of the page behind this pipeline."""
    return base64.urlsafe_b64encode(f"{_NAME}{name}".encode()).decode()


def page_token(namespace: str, key: str) -> str:
    """Return the token of the page behind this run."""
    text = f"{namespace.replace(':', ';')}:{key}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _from_page_token(token: str) -> tuple[str, str] | None:
    namespace, _, key = _decoded(token).partition(":")
    namespace = namespace.replace(";", ":")
    checks = Checks()
    checks.run_key(pb.GetStatusRequest(namespace=namespace, key=key))
    return None if checks.violations or not namespace else (namespace, key)


def _decoded(token: str) -> str:
    """Return the text of a token; empty for what is none."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def has_control_characters(text: str) -> bool:
    """Return whether `text` has a control, format, surrogate or line-separating character."""
    return any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)


def all_finite(values: Sequence[float]) -> bool:
    """Return whether none of them is NaN or infinite."""
    return all(map(math.isfinite, values))
