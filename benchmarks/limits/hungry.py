"""Readers in a process of their own: each reads its key again and again, until it is stopped.

Arguments: the API's address, and the keys. Prints a line for each answer: its size, or its code.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from .reads import reader

_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]


async def main(address: str, keys: list[str]) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:

        async def again(key: str) -> None:
            read = reader(channel, key)
            while True:
                try:
                    print(len(await read()), flush=True)
                except grpc.aio.AioRpcError as error:
                    print(error.code().name, flush=True)
                    await asyncio.sleep(0.1)

        await asyncio.gather(*map(again, keys))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
