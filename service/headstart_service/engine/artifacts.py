"""The result codec of pipelines that have no message of their own: artifacts in CustomResults."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from headstart.v1 import precompute_pb2 as pb


class ArtifactCodec:
    """Keeps bytes as they are, numpy arrays as float32 tensors, anything else as JSON.

    Decoded JSON has JSON's types: tuples come back as lists, integers as floats.
    """

    def encode(self, step: str, value: Any) -> bytes:
        """The fragment that holds `value`. Raises TypeError when it is none of the above."""
        artifact = pb.Artifact()
        if isinstance(value, bytes):
            artifact.data = value
        elif hasattr(value, "__array__"):
            # Only a worker has values, and a value like this has imported numpy already.
            import numpy as np

            artifact.tensor.shape.extend(value.shape)
            artifact.tensor.values.extend(np.ravel(value).astype(np.float32).tolist())
        else:
            try:
                # Protobuf takes NaN and infinity, and then nobody can show or decode them as JSON.
                json.dumps(value, allow_nan=False)
                json_format.ParseDict(value, artifact.json)
            except (json_format.ParseError, TypeError, ValueError) as error:
                message = f"step {step} returned {type(value).__name__}, which is not JSON"
                raise TypeError(message) from error
        results = pb.CustomResults(artifacts={step: artifact})
        return pb.GetResultsResponse(custom=results).SerializeToString()

    def decode(self, step: str, fragment: bytes) -> Any:
        """The value that `encode` was given, within what JSON and float32 can hold."""
        artifact = pb.GetResultsResponse.FromString(fragment).custom.artifacts[step]
        kind = artifact.WhichOneof("value")
        if kind == "data":
            return artifact.data
        if kind == "tensor":
            import numpy as np

            tensor = artifact.tensor
            return np.array(tensor.values, dtype=np.float32).reshape(tuple(tensor.shape))
        return json_format.MessageToDict(artifact.json)
