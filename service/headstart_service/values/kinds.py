"""The kinds of values that a step may return: each fits an annotation, and becomes an artifact."""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaError

from headstart._for_service import DTYPES
from headstart.v1 import precompute_pb2 as pb

from ..domain.errors import StepFailed
from .annotations import MISSING, ArrayType, is_numpys, spelled
from .json_values import NotJson, json_text
from .tensors import array_from, write_tensor

_OWN_WORDS: Final = frozenset({"value_error", "assertion_error"})
"""Errors whose text is an author's, and may repeat the value."""


class Kind(Protocol):
    """What a step returns."""

    @property
    def text(self) -> str:
        """As Python writes it, such as `list[str]`."""
        ...

    def checked(self, value: Any) -> Any:
        """The value as the next step gets it. Raises StepFailed when it does not fit."""
        ...

    def write(self, value: Any, artifact: pb.Artifact) -> None:
        """Put what `checked` gave into an empty artifact. Raises StepFailed when it cannot be."""
        ...

    def read(self, artifact: pb.Artifact) -> Any:
        """The value that was written."""
        ...

    def misfit(self, artifact: pb.Artifact) -> str:
        """Return what a caller's artifact must be, if it is not; needs no numpy."""
        ...


def kind_of(annotation: Any) -> Kind:
    """The kind of an annotation. Raises ValueError, with the reason, when there is none."""
    if annotation is MISSING:
        raise ValueError("say what it returns: an annotation such as -> list[str]")
    if annotation is Any or annotation is object:
        return AnyKind()
    if annotation is bytes:
        return BytesKind()
    if isinstance(annotation, ArrayType):
        return ArrayKind(annotation.dtype)
    return JsonKind(annotation)


class BytesKind:
    """Bytes, as they are."""

    text = "bytes"

    def checked(self, value: Any) -> Any:
        """See `Kind`."""
        if not isinstance(value, bytes):
            raise _misfit(value, self.text)
        return value

    def write(self, value: Any, artifact: pb.Artifact) -> None:
        """See `Kind`."""
        artifact.data = value

    def read(self, artifact: pb.Artifact) -> Any:
        """See `Kind`."""
        return artifact.data

    def misfit(self, artifact: pb.Artifact) -> str:
        """See `Kind`."""
        return "" if artifact.WhichOneof("value") == "data" else f"data, for {self.text}"


class ArrayKind:
    """A numpy array of numbers, whatever its shape."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self.text = spelled(ArrayType(dtype))

    def checked(self, value: Any) -> Any:
        """See `Kind`."""
        if not any(is_numpys(each, "ndarray") for each in type(value).__mro__):
            raise _misfit(value, self.text)
        # Only a worker has values, and a value like this has imported numpy already.
        import numpy as np

        if isinstance(value, np.ma.MaskedArray):
            raise StepFailed(
                "returned MaskedArray, whose mask cannot be kept: fill it", retry=False
            )
        name = value.dtype.name
        wanted = getattr(np, self._dtype, None) if self._dtype else None
        if wanted is not None and not np.issubdtype(value.dtype, wanted):
            raise StepFailed(f"returned ndarray[{name}], not {self.text}", retry=False)
        if name not in DTYPES:
            raise StepFailed(f"returned ndarray[{name}], whose values are no numbers", retry=False)
        return value

    def write(self, value: Any, artifact: pb.Artifact) -> None:
        """See `Kind`."""
        write_tensor(value, artifact.tensor)

    def read(self, artifact: pb.Artifact) -> Any:
        """See `Kind`."""
        return array_from(artifact.tensor)

    def misfit(self, artifact: pb.Artifact) -> str:
        """See `Kind`."""
        if artifact.WhichOneof("value") != "tensor":
            return f"a tensor, for {self.text}"
        # Only numpy knows which types are of an abstract one, such as `floating`.
        exact = self._dtype in DTYPES and artifact.tensor.dtype != self._dtype
        return f"a tensor of {self._dtype}, is of {artifact.tensor.dtype}" if exact else ""


class JsonKind:
    """Whatever pydantic can write as JSON: numbers, text, lists, dicts, models and more."""

    def __init__(self, annotation: Any) -> None:
        self.text = spelled(annotation)
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self._adapter.json_schema(mode="serialization")
        except (PydanticUserError, SchemaError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.text} cannot be kept: it must be an array, bytes, or what pydantic can "
                f"write as JSON (numbers, text, lists, dicts, models): {str(error).splitlines()[0]}"
            ) from error

    def checked(self, value: Any) -> Any:
        """See `Kind`."""
        try:
            return self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise self._failure(value, error) from error

    def write(self, value: Any, artifact: pb.Artifact) -> None:
        """See `Kind`."""
        try:
            plain = self._adapter.dump_python(value, mode="json", warnings="error")
            artifact.json = json_text(plain)
        except NotJson as error:
            raise StepFailed(
                f"returned {type(value).__name__} that {error}", retry=False
            ) from error
        except (PydanticSerializationError, ValueError) as error:
            reason = f"returned {type(value).__name__} that cannot be written as {self.text}"
            raise StepFailed(reason, retry=False) from error

    def read(self, artifact: pb.Artifact) -> Any:
        """See `Kind`."""
        return self._adapter.validate_json(artifact.json)

    def misfit(self, artifact: pb.Artifact) -> str:
        """See `Kind`."""
        if artifact.WhichOneof("value") != "json":
            return f"json, for {self.text}"
        try:
            self.read(artifact)
        except ValidationError as error:
            return self.text + _place(error)
        return ""

    def _failure(self, value: Any, error: ValidationError) -> StepFailed:
        return StepFailed(f"{_misfit(value, self.text)}{_place(error)}", retry=False)


class AnyKind:
    """`Any`: bytes, arrays of numbers, or plain JSON, as the value is."""

    text = "Any"

    def checked(self, value: Any) -> Any:
        """See `Kind`."""
        if isinstance(value, BaseModel):
            raise StepFailed(
                f"returned {type(value).__name__}: annotate the step with that model", retry=False
            )
        return value

    def write(self, value: Any, artifact: pb.Artifact) -> None:
        """See `Kind`."""
        if isinstance(value, bytes):
            artifact.data = value
        elif hasattr(value, "__array__"):
            import numpy as np

            kind = ArrayKind("")
            kind.write(kind.checked(np.asanyarray(value)), artifact)
        else:
            try:
                artifact.json = json_text(value)
            except NotJson as error:
                reason = f"returned {type(value).__name__} that {error}"
                raise StepFailed(reason, retry=False) from error

    def read(self, artifact: pb.Artifact) -> Any:
        """See `Kind`."""
        match artifact.WhichOneof("value"):
            case "data":
                return artifact.data
            case "tensor":
                return array_from(artifact.tensor)
        return json.loads(artifact.json)

    def misfit(self, artifact: pb.Artifact) -> str:  # noqa: ARG002  # anything fits
        """See `Kind`."""
        return ""


def _place(error: ValidationError) -> str:
    """What does not fit, and where; never the value, which may hold anything."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if not first["loc"]:
        return ""
    place = ".".join(map(str, first["loc"]))
    rule = "breaks a rule" if first["type"] in _OWN_WORDS else first["msg"]
    return f": at {place}: {rule}"


def _misfit(value: Any, text: str) -> StepFailed:
    return StepFailed(f"returned {type(value).__name__}, not {text}", retry=False)
