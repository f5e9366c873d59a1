"""StartPrecompute: starts, joins or reuses a run."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Any, Final

from headstart._for_service import INPUTS, InputsError, inputs_of
from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey, RunPlan, Started
from ...domain.errors import InvalidRequest, Violation
from .. import messages
from ..dependencies import LARGE_REQUEST, Call, Dependencies
from ..request_rules import MAX_TTL, MIN_TTL, checked_key, seconds
from ..write_log import of_write

log = logging.getLogger(__name__)

METHOD: Final = "StartPrecompute"
MAX_NEED: Final = 7 * 24 * 3600.0
_RECIPIENT: Final = {pb.RECIPIENT_TYPE_HUMAN: "human", pb.RECIPIENT_TYPE_HAIKU: "haiku"}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Start:
    """A valid start. Durations in seconds."""

    key: RunKey
    plan: RunPlan
    ttl: float
    restart: bool
    request_id: str
    needed_in: float | None


class StartPrecompute:
    """Starts a run by one atomic transition of the store."""

    def __init__(self, api: Dependencies) -> None:
        self._api = api

    def parse(self, request: pb.StartPrecomputeRequest) -> Start:
        """Return the start that the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        ttl = seconds(request, "ttl", MIN_TTL, MAX_TTL, self._api.rules.result_ttl, violations)
        needed_in = None
        if request.HasField("expected_need_in"):
            needed_in = seconds(request, "expected_need_in", 0, MAX_NEED, 0.0, violations)
            if not request.HasField("ttl"):
                ttl += needed_in  # else the results might expire before they are needed
        if request.request_id and not _REQUEST_ID.fullmatch(request.request_id):
            rule = "must be 1 to 64 letters, digits, '.', '_' and '-', or empty"
            violations.append(Violation("request_id", rule))
        plan = self._plan(request, violations)
        if plan is None or violations:
            raise InvalidRequest(violations)
        return Start(key, plan, ttl, request.restart, request.request_id, needed_in)

    async def handle(
        self, request: pb.StartPrecomputeRequest, call: Call
    ) -> pb.StartPrecomputeResponse:
        """Start the run; from then on this process serves nothing older of its key."""
        return await self.start(request, call, logging.INFO)

    async def start(
        self, request: pb.StartPrecomputeRequest, call: Call, level: int
    ) -> pb.StartPrecomputeResponse:
        """As `handle`, with a log line of this level."""
        if request.ByteSize() > LARGE_REQUEST:
            start = await asyncio.to_thread(self.parse, request)
        else:
            start = self.parse(request)
        begin = self._api.start or self._api.store.start
        started = await begin(
            start.key,
            start.plan,
            start.ttl,
            restart=start.restart,
            request_id=start.request_id,
            needed_in=start.needed_in,
        )
        # Drop the answer before the response is sent: the caller's next read must return this run.
        self._api.reader.outdate(start.key)
        if log.isEnabledFor(level):
            self._log(start, started, call, level)
        self._api.observer.started(started.outcome)
        return pb.StartPrecomputeResponse(
            namespace=start.key.namespace,
            key=start.key.key,
            outcome=messages.outcome(started.outcome),
            status=messages.status(started.status),
            revision=started.revision,
        )

    def _log(self, start: Start, started: Started, call: Call, level: int) -> None:
        """Write one line for a start; its inputs only if the operator asks for them."""
        more: dict[str, Any] = {"revision": started.revision, "pipeline": start.plan.pipeline}
        if self._api.rules.log_inputs:
            more["inputs"] = start.plan.inputs.decode(errors="replace")
        outcome = started.outcome.value
        extra = of_write(call, METHOD, outcome, start.key, **more)
        log.log(level, "%s revision %d %s", start.key, started.revision, outcome, extra=extra)

    def _plan(
        self, request: pb.StartPrecomputeRequest, violations: list[Violation]
    ) -> RunPlan | None:
        """Return the run that the request describes; append to `violations` if there is none."""
        registry = self._api.registry
        try:
            match request.WhichOneof("spec"):
                case "bridging":
                    pipeline = registry.require("bridging", "bridging")
                    return pipeline.plan(bridging_inputs(request.bridging), "bridging")
                case "custom":
                    pipeline = registry.require(request.custom.pipeline, "custom.pipeline")
                    return pipeline.plan(custom_inputs(request.custom), INPUTS)
                case _:
                    violations.append(Violation("spec", "must be set: bridging or custom"))
        except InvalidRequest as error:
            violations.extend(error.violations)
        return None


def bridging_inputs(spec: pb.BridgingSpec) -> dict[str, Any]:
    """Return a bridging game's inputs as its pipeline takes them."""
    inputs: dict[str, Any] = {"anchor": spec.anchor, "target": spec.target}
    inputs["recipient_type"] = _RECIPIENT.get(spec.recipient_type, "unspecified")
    for name in ("clue_count", "null_sample_count"):
        if spec.HasField(name):
            inputs[name] = getattr(spec, name)
    return inputs


def custom_inputs(spec: pb.CustomSpec) -> dict[str, Any]:
    """Return any pipeline's inputs as plain values. Raises InvalidRequest."""
    try:
        return inputs_of(spec)
    except InputsError as error:
        raise InvalidRequest([Violation(*rule) for rule in error.rules]) from error
