"""A server's reflection, asked with one message.

As a stream, which it is, a call that the server refuses at once says INTERNAL now and then: its own
sending has failed before it has read why.
"""

import grpc
from grpc_reflection.v1alpha import reflection_pb2 as pb

_METHOD = f"/{pb.DESCRIPTOR.services_by_name['ServerReflection'].full_name}/ServerReflectionInfo"


async def services(
    channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] | None = None
) -> set[str]:
    """The names of the server's services.

    Raises:
        grpc.aio.AioRpcError: The server refuses to tell.
    """
    ask = channel.unary_stream(
        _METHOD,
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )
    call = ask(pb.ServerReflectionRequest(list_services=""), metadata=metadata, timeout=10)
    (answer,) = [answer async for answer in call]
    return {service.name for service in answer.list_services_response.service}
