"""What KEDA and the Kubernetes autoscaler make of a manifest and of numbers, in simulated seconds.

After the algorithm that Kubernetes documents, and after KEDA 2.17: the formula replaces all
triggers, its value decides between none and one, and the autoscaler between one and many.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

POLL: Final = 15.0
"""Seconds between two looks of the autoscaler."""
_TOLERANCE: Final = 0.1
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

Read = Callable[[Mapping[str, Any]], float]
"""Returns a trigger's value; raises ConnectionError where its source does not answer."""


def computed(formula: str, values: Mapping[str, float]) -> float:
    """Return the value of a formula of names, numbers and arithmetic."""

    def of(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left, op, right):
                return _OPERATORS[type(op)](of(left), of(right))
            case ast.Name(name):
                return values[name]
            case ast.Constant(value) if isinstance(value, int | float):
                return value
            case _:
                raise ValueError(ast.unparse(node))

    return of(ast.parse(formula, mode="eval").body)


def per_pod(total: float, target: float, replicas: int) -> int:
    """Return how many pods bring an average to its target; near it, those that there are."""
    if abs(total / (target * replicas) - 1) <= _TOLERANCE:
        return replicas
    return ceil(total / target)


@dataclass
class Autoscaler:
    """A HorizontalPodAutoscaler with the behaviour of its manifest."""

    least: int
    most: int
    behavior: Mapping[str, Any]
    _wanted: list[tuple[float, int]] = field(default_factory=list)

    def step(self, now: float, replicas: int, wanted: int) -> int:
        """Return how many replicas there are after a look that wants so many."""
        down = self.behavior.get("scaleDown", {})
        window = down.get("stabilizationWindowSeconds", 300)
        self._wanted = [each for each in self._wanted if each[0] > now - window]
        self._wanted.append((now, wanted))
        if wanted < replicas:
            # The highest of the window counts, so that a lull ends nothing.
            wanted = min(replicas, max(number for _, number in self._wanted))
            for policy in down.get("policies", ()):
                assert policy["type"] == "Pods"
                steps = ceil(policy["periodSeconds"] / POLL)
                allowed = policy["value"] if round(now / POLL) % steps == 0 else 0
                wanted = max(wanted, replicas - allowed)
        else:
            assert "scaleUp" not in self.behavior
            wanted = min(wanted, max(2 * replicas, replicas + 4))
        return max(self.least, min(self.most, wanted))


class Keda:
    """A ScaledObject, which scales a Deployment by numbers that `read` returns."""

    def __init__(self, resource: Mapping[str, Any], read: Read, replicas: int) -> None:
        self.replicas = replicas
        self._spec = spec = resource["spec"]
        self._read = read
        modifiers = spec["advanced"]["scalingModifiers"]
        assert modifiers["metricType"] == "AverageValue"
        self._formula = modifiers["formula"]
        self._target = int(modifiers["target"])  # KEDA's fallback takes no fraction
        self._hpa = Autoscaler(
            max(1, spec["minReplicaCount"]),
            spec["maxReplicaCount"],
            spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        )
        self._failures = 0
        self._active_at = 0.0

    def value(self) -> float | None:
        """Return what the formula makes of the numbers; None where one cannot be read."""
        try:
            values = {each["name"]: self._read(each) for each in self._spec["triggers"]}
        except ConnectionError:
            return None
        return computed(self._formula, values)

    def run(self, begin: float, end: float) -> Iterator[float]:
        """Scale from one second to another; yield each time, for others to act in."""
        every = self._spec["pollingInterval"]
        for second in range(round(begin), round(end)):
            if second % every == 0:
                self._poll(second)
            if second % POLL == 0 and self.replicas:
                self._look(second)
            yield float(second)

    def _poll(self, now: float) -> None:
        """Decide between none and one."""
        value, spec = self.value(), self._spec
        if value is None:
            self._failures += 1
            if self._fallen and not self.replicas:
                self.replicas = spec["fallback"]["replicas"]
            return
        self._failures = 0
        if value > 0:
            self._active_at = now
            self.replicas = self.replicas or max(1, spec["minReplicaCount"])
        elif self.replicas < spec["minReplicaCount"]:
            self.replicas = spec["minReplicaCount"]
        elif not spec["minReplicaCount"] and now - self._active_at > spec["cooldownPeriod"]:
            self.replicas = 0

    def _look(self, now: float) -> None:
        """Decide how many."""
        value = self.value()
        if value is None:
            if not self._fallen:
                return
            assert self._spec["fallback"]["behavior"] == "currentReplicasIfHigher"
            value = self._target * max(self.replicas, self._spec["fallback"]["replicas"])
        wanted = per_pod(value, self._target, self.replicas)
        self.replicas = self._hpa.step(now, self.replicas, wanted)

    @property
    def _fallen(self) -> bool:
        return self._failures > self._spec["fallback"]["failureThreshold"]


class ResourceAutoscaler:
    """A HorizontalPodAutoscaler of a manifest, by the averages of its metrics over all pods."""

    def __init__(self, resource: Mapping[str, Any], replicas: int) -> None:
        self.replicas = replicas
        spec = resource["spec"]
        self._metrics: Sequence[Mapping[str, Any]] = spec["metrics"]
        self._hpa = Autoscaler(spec["minReplicas"], spec["maxReplicas"], spec["behavior"])

    def look(self, now: float, totals: Mapping[str, float]) -> None:
        """Scale by the sum over all pods of each metric that can be read."""
        wanted, missing = [], False
        for metric in self._metrics:
            name, target = _target(metric)
            if name in totals:
                wanted.append(per_pod(totals[name], target, self.replicas))
            else:
                missing = True
        most = max(wanted, default=self.replicas)
        # Without one of its metrics the autoscaler adds pods, and takes none away.
        self.replicas = self._hpa.step(
            now, self.replicas, max(most, self.replicas) if missing else most
        )


def _target(metric: Mapping[str, Any]) -> tuple[str, float]:
    match metric:
        case {"type": "Resource", "resource": {"name": name, "target": target}}:
            return name, float(target["averageUtilization"])
        case {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}:
            return name, float(target["averageValue"])
    raise ValueError(metric)
