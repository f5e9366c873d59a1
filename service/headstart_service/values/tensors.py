"""Numpy arrays as tensors, and back: shape, values and type are what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart._for_service import tensor_from
from headstart.v1 import precompute_pb2 as pb

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_tensor(array: NDArray[Any], tensor: pb.Tensor) -> None:
    """Write an array, whose dtype is one of `DTYPES`, into an empty tensor."""
    tensor.dtype = array.dtype.name
    tensor.shape.extend(array.shape)
    # The wire is little-endian whatever the machine is; on those that are, this copies once.
    tensor.data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def array_from(tensor: pb.Tensor) -> NDArray[Any]:
    """Return the array that was written, which its step may change. Raises ValueError."""
    array: NDArray[Any] = tensor_from(tensor).to_numpy()
    return array.astype(array.dtype.newbyteorder("="))
