"""Every place that names methods names those of the contract."""

from __future__ import annotations

import json
import re

from headstart._transport.endpoint import service_config
from headstart_service.api.call_limits import CallKind
from headstart_service.api.method_table import METHOD_TABLE, Scope
from headstart_service.auth.grants import Verb
from headstart_service.base.service_methods import METHODS, STREAMS


def test_each_method_of_the_contract_has_a_handler_in_a_module_of_its_name() -> None:
    assert METHOD_TABLE.keys() == METHODS.keys()
    for name, method in METHOD_TABLE.items():
        module = re.sub("(?<!^)([A-Z])", r"_\1", name).lower()
        assert method.handler.__module__.endswith(f"api.methods.{module}")


def test_limits_and_scopes_follow_from_the_fields_of_the_requests() -> None:
    kinds = {n: m.kind for n, m in METHOD_TABLE.items() if m.kind is not CallKind.OTHER}
    assert kinds == {
        "GetResults": CallKind.WAIT,
        "BatchGetResults": CallKind.WAIT,
        "WatchResults": CallKind.WATCH,
    }
    many = {n for n, m in METHOD_TABLE.items() if m.scope is Scope.NAMESPACE}
    assert many == {"ListPrecomputes", "GetStats"}
    several = {n for n, m in METHOD_TABLE.items() if m.scope is Scope.PROCESS}
    assert several == {"BatchStartPrecomputes", "ListPipelines"}
    writes = {n for n, m in METHOD_TABLE.items() if m.verb is Verb.WRITE}
    assert writes == {
        *(
            "StartPrecompute",
            "BatchStartPrecomputes",
            "CancelPrecompute",
            "DeletePrecompute",
            "TouchPrecompute",
        ),
        "ReportStep",
    }
    assert {"WatchResults"} == STREAMS


def test_clients_retry_the_methods_that_the_table_names() -> None:
    [policy] = json.loads(service_config(max_attempts=3))["methodConfig"]
    named = {name["method"] for name in policy["name"]}
    assert named == {name for name, method in METHOD_TABLE.items() if method.retried}
