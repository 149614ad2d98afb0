"""What a server of the tests leaves when it is closed: handlers, and connections that the loop had just accepted."""

from __future__ import annotations

import asyncio
import ssl
import time
import traceback
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


async def handlers_have_ended() -> None:
    """Wait for tasks of the tests' own code, and for connections that asyncio's servers have just accepted.

    How many turns a handler needs to hear that its client has left is the kernel's and the loop's. It begins late where
    the loop had accepted the connection as the server was closed. For tasks of the package nobody waits.
    """
    deadline = time.monotonic() + 5
    while any(map(is_of_the_tests, asyncio.all_tasks() - {asyncio.current_task()})) and time.monotonic() < deadline:
        for _ in range(3):
            await asyncio.sleep(0)


def is_of_the_tests(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and (code.co_filename.startswith(str(TESTS)) or code.co_name == "_accept_connection2")


def is_of_a_server(context: dict[str, Any]) -> bool:
    """Whether asyncio's debug mode tells of a connection that a server of a test accepted, and that did not begin.

    Its client has ended the handshake, as the test wants; or the server was closed meanwhile, and `Server._attach()`
    asserts that it is open (CPython 3.12 to 3.15). The connection is closed.
    """
    message = "Error on transport creation for incoming connection"
    return context["message"] == message and isinstance(
        context.get("exception"), (ConnectionError, ssl.SSLError, AssertionError)
    )


def end_half_made(context: dict[str, Any]) -> None:
    """Close the socket of the transport whose constructor failed so: otherwise asyncio warns of both as unclosed.

    The transport of TLS, which is made before it, is aborted for the same reason.
    """
    if isinstance(context["exception"], OSError):
        return  # of a handshake: asyncio has closed it
    for frame, _ in traceback.walk_tb(context["exception"].__traceback__):
        if (tls := frame.f_locals.get("ssl_protocol")) is not None:
            tls._app_transport.abort()
        transport = frame.f_locals.get("self")
        if isinstance(transport, asyncio.Transport):
            # The attributes of asyncio's transport; there is no other way to one that nobody got.
            transport._sock.close()  # type: ignore[attr-defined]
            transport._sock = None  # type: ignore[attr-defined]
