"""The methods of the service: what the descriptor states of each, its handler and its verb.

Every transport registers its handlers from this table.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol, TypeAlias

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass

from ..auth.grants import Grant, Verb
from ..base.service_methods import METHODS
from .call_limits import CallKind
from .dependencies import Call, Dependencies
from .methods.batch_get_results import BatchGetResults
from .methods.batch_start_precomputes import BatchStartPrecomputes
from .methods.cancel_precompute import CancelPrecompute
from .methods.create_run_token import CreateRunToken
from .methods.delete_precompute import DeletePrecompute
from .methods.get_results import GetResults
from .methods.get_stats import GetStats
from .methods.get_status import GetStatus
from .methods.list_pipelines import ListPipelines
from .methods.list_precomputes import ListPrecomputes
from .methods.report_step import ReportStep
from .methods.start_precompute import StartPrecompute
from .methods.touch_precompute import TouchPrecompute
from .methods.watch_results import WatchResults
from .request_rules import namespace_of

Handle: TypeAlias = Callable[[Any, Call], Awaitable[Any] | AsyncGenerator[Any]]
"""Serves a request; returns a response, or an async generator of them for a stream."""


class Handler(Protocol):
    """A method's class, as the modules of `methods` have it."""

    @property
    def parse(self) -> Callable[[Any], Any]:
        """Return the valid command that a request holds. Raises InvalidRequest."""
        ...

    @property
    def handle(self) -> Handle:
        """Serve a request. Raises domain errors."""
        ...


class Scope(Enum):
    """What a request is about."""

    RUN = auto()
    """Runs of one namespace, the default one if it names none."""
    NAMESPACE = auto()
    """The runs of one namespace, or of all if it names none."""
    PROCESS = auto()
    """No run, or runs of several namespaces, which its method checks one by one."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table."""

    descriptor: MethodDescriptor
    handler: Callable[[Dependencies], Handler]
    verb: Verb
    """What the caller's token must grant, where a request is about runs."""

    @property
    def name(self) -> str:
        """Its name in the contract, such as GetResults."""
        name: str = self.descriptor.name
        return name

    @property
    def request(self) -> Any:
        """The class of its requests."""
        return GetMessageClass(self.descriptor.input_type)

    @property
    def streams(self) -> bool:
        """Whether it streams its responses."""
        streams: bool = self.descriptor.server_streaming
        return streams

    @property
    def reads(self) -> bool:
        """Whether it changes nothing and answers once, so that HTTP may send it by GET."""
        level: int = self.descriptor.GetOptions().idempotency_level
        return level == MethodOptions.NO_SIDE_EFFECTS and not self.streams

    @property
    def retried(self) -> bool:
        """Whether clients retry it by themselves: a stream that has begun would not be resumed."""
        return not self.streams

    @property
    def kind(self) -> CallKind:
        """Which limit its calls count towards."""
        if self.streams:
            return CallKind.WATCH
        return CallKind.WAIT if "wait" in self._fields else CallKind.OTHER

    @property
    def scope(self) -> Scope:
        """What its requests are about, by the fields that they have."""
        if "key" in self._fields or "keys" in self._fields:
            return Scope.RUN
        return Scope.NAMESPACE if "namespace" in self._fields else Scope.PROCESS

    @property
    def check(self) -> Callable[[Any, Grant], None]:
        """Return the check of a request by the grant of its caller. It raises PermissionDenied."""
        verb = self.verb

        def of_run(request: Any, grant: Grant) -> None:
            namespace = namespace_of(request)
            for key in getattr(request, "keys", ()) or (getattr(request, "key", None),):
                grant.demand(verb, namespace, key)

        def of_namespace(request: Any, grant: Grant) -> None:
            grant.demand(verb, request.namespace or None)

        def of_process(_: Any, __: Grant) -> None:
            """Any token is enough."""

        checks = {Scope.RUN: of_run, Scope.NAMESPACE: of_namespace, Scope.PROCESS: of_process}
        return checks[self.scope]

    @property
    def _fields(self) -> Any:
        return self.descriptor.input_type.fields_by_name


_ROWS: Final[tuple[tuple[type[Any], Verb], ...]] = (
    (StartPrecompute, Verb.WRITE),
    (BatchStartPrecomputes, Verb.WRITE),
    (GetResults, Verb.READ),
    (BatchGetResults, Verb.READ),
    (WatchResults, Verb.READ),
    (GetStatus, Verb.READ),
    (CancelPrecompute, Verb.WRITE),
    (DeletePrecompute, Verb.WRITE),
    (TouchPrecompute, Verb.WRITE),
    (CreateRunToken, Verb.READ),
    (ReportStep, Verb.WRITE),
    (ListPrecomputes, Verb.READ),
    (ListPipelines, Verb.READ),
    (GetStats, Verb.READ),
)
METHOD_TABLE: Final = {
    handler.__name__: Method(METHODS[handler.__name__], handler, verb) for handler, verb in _ROWS
}
