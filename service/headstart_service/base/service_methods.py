"""Lists the methods of PrecomputeService, as its protobuf descriptor does."""

from __future__ import annotations

from typing import Final

from headstart.v1 import precompute_pb2 as pb

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["PrecomputeService"]

SERVICE: Final[str] = _SERVICE.full_name
METHODS: Final = {method.name: method for method in _SERVICE.methods}
"""Each method's descriptor, by its name, in the order of the contract."""
STREAMS: Final = frozenset(name for name, method in METHODS.items() if method.server_streaming)
"""The methods that stream their responses."""
