"""The TCP examples of the user's document (../shared/network-module.md), as written there, against a real server.

The text of the examples is taken from the document itself where it is beside the checkout, so that the two cannot drift
apart; the copies below stand in for it elsewhere.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from pathlib import Path

import pytest
from support.servers import echo_server

import pepperpy.network
from pepperpy.network import NetworkClient, NetworkConfig

DOCUMENT = Path(__file__).parents[3] / "shared" / "network-module.md"

CONFIG = """
from pepperpy.network import NetworkConfig

# Create configuration
config = NetworkConfig(
    host="localhost",
    port=8000,
    timeout=5.0,
    retries=3,
    retry_delay=1.0
)
"""

CLIENT = """
from pepperpy.network import NetworkClient

# Create client
client = NetworkClient(config)

# Use with context manager
async with client:
    # Send data
    await client.send(b"Hello")
    
    # Receive data
    data = await client.receive(1024)
"""

USAGE = """
from pepperpy.network import NetworkClient, NetworkConfig

async def handle_connection():
    config = NetworkConfig(
        host="localhost",
        port=8000
    )
    
    async with NetworkClient(config) as client:
        # Send request
        await client.send(b"GET /data\\n")
        
        # Receive response
        response = await client.receive(1024)
        print(f"Received: {response}")
"""


@pytest.mark.parametrize("example", [CONFIG, CLIENT, USAGE], ids=["config", "client", "usage"])
def test_the_examples_here_are_those_of_the_document(example: str) -> None:
    if not DOCUMENT.exists():
        pytest.skip("the user's document is not beside this checkout")
    assert example.strip() in DOCUMENT.read_text()


async def test_the_client_example_runs_as_written() -> None:
    async with echo_server() as port:
        names: dict[str, object] = {}
        exec(CONFIG, names)
        assert names["config"] == NetworkConfig("localhost", 8000, 5.0, 3, 1.0)
        names["config"] = NetworkConfig("localhost", port)
        exec(f"async def example():\n{textwrap.indent(CLIENT, '    ')}\n    return data", names)
        assert await names["example"]() == b"Hello"  # type: ignore[operator]


async def test_the_usage_example_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    async with echo_server() as port:
        names: dict[str, object] = {}
        exec(USAGE.replace("8000", str(port)), names)
        await names["handle_connection"]()  # type: ignore[operator]
        assert capsys.readouterr().out == "Received: b'GET /data\\n'\n"


def test_the_reference_signatures_hold() -> None:
    for name, parameters in {"connect": [], "disconnect": [], "send": ["data"], "receive": ["size"]}.items():
        method = getattr(NetworkClient, name)
        assert inspect.iscoroutinefunction(method)
        signature = inspect.signature(method)
        assert list(signature.parameters)[: len(parameters) + 1] == ["self", *parameters]
        required = [p for p in list(signature.parameters.values())[1:] if p.default is p.empty]
        assert [p.name for p in required] in ([], parameters)


def test_the_reference_docstrings_begin_as_documented() -> None:
    for name, words in {
        "connect": "Connect to server",
        "disconnect": "Disconnect from server",
        "send": "Send data to server",
        "receive": "Receive data from server",
    }.items():
        assert (inspect.getdoc(getattr(NetworkClient, name)) or "").startswith(words)


async def test_send_and_receive_after_connect_and_disconnect_by_hand() -> None:
    async with echo_server() as port:
        client = NetworkClient(NetworkConfig(host="localhost", port=port))
        await client.connect()
        await client.send(b"by hand")
        assert await client.receive(1024) == b"by hand"
        await client.disconnect()
        await asyncio.sleep(0)
        assert not client.is_connected


def test_everything_public_is_listed_and_importable() -> None:
    # Their order is ruff's (RUF022), which puts constants and abbreviations first.
    assert len(set(pepperpy.network.__all__)) == len(pepperpy.network.__all__)
    for name in pepperpy.network.__all__:
        public = getattr(pepperpy.network, name)
        # Aliases of types have no docstring of their own.
        assert name in ("Middleware", "RequestData", "Send", "State") or public.__doc__
