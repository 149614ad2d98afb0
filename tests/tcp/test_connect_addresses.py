"""From addresses to a socket: the race, an address that accepts and then fails, zones, socket options."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import LOOPS
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, server_cert, server_context
from support.limits import end_limits
from support.mortal import Handler, echo, hang_up, reconnecting, silence
from support.names import names
from support.processes import reserved_ports
from support.servers import client_of, echo_server, peer_and_client
from support.tls_peer import use_transport

from pepperpy.network import ConnectError, Keepalive, NetworkClient, NetworkConfig, TLSConfig
from pepperpy.network.lookup import AddressInfo, look_up
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.tcp.race import interleaved, race
from pepperpy.network.transient import may_pass

FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


@contextlib.asynccontextmanager
async def serving(
    port: int, address: str, handler: Handler, accepted: list[str], **options: object
) -> AsyncIterator[None]:
    """A server on one address, which notes it for each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(address)
        try:
            with contextlib.suppress(ConnectionError):
                await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, address, port, **options)  # type: ignore[arg-type]
    try:
        yield
    finally:
        server.close()
        for _ in range(3):
            await asyncio.sleep(0)


async def answers(connection: NetworkClient) -> None:
    await connection.send(b"hello")
    if not await connection.receive():
        raise EOFError("hung up")


# ---- An address that accepts, and then fails ----


async def test_the_attempt_after_a_failed_on_connect_uses_the_next_address() -> None:
    accepted: list[str] = []
    with reserved_ports(1) as [port], names({"db.example": [FIRST, SECOND]}):
        async with serving(port, FIRST, hang_up, accepted), serving(port, SECOND, echo, accepted):
            config = NetworkConfig("db.example", port, retries=1, retry_delay=0, on_connect=answers)
            async with NetworkClient(config) as client:
                assert client.remote_address == (SECOND, port)
            assert accepted == [FIRST, SECOND]


@pytest.mark.parametrize("failure", ["hangs up", "is silent"])
async def test_the_attempt_after_a_failed_handshake_uses_the_next_address(
    failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aiofastnet's tells the loop's exception handler of a handshake that the peer ends, and fails the test by that.
    use_transport(monkeypatch, "the loop's")
    accepted: list[str] = []

    async def hears_it_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)

    broken = hears_it_first if failure == "hangs up" else silence
    with reserved_ports(1) as [port], names({"db.example": [FIRST, SECOND]}):
        secure = serving(port, SECOND, echo, accepted, ssl=server_context(server_cert()))
        async with serving(port, FIRST, broken, accepted), secure:
            config = NetworkConfig(
                "db.example",
                port,
                retries=1,
                retry_delay=0,
                tls=TLSConfig(ca_file=ca_file(), server_hostname="localhost"),
                connect_timeout=30,
            )
            client = NetworkClient(config)
            connecting = asyncio.create_task(client.connect())
            if failure == "is silent":
                await until(lambda: accepted == [FIRST], "the first has accepted")
                # Now the time of this attempt is over.
                end_limits()
            await connecting
            async with client:
                assert client.remote_address == (SECOND, port)
            assert accepted == [FIRST, SECOND]


async def test_addresses_that_accept_and_fail_take_turns() -> None:
    accepted: list[str] = []
    with reserved_ports(1) as [port], names({"db.example": [FIRST, SECOND, THIRD]}):
        async with contextlib.AsyncExitStack() as stack:
            for address in (FIRST, SECOND, THIRD):
                await stack.enter_async_context(serving(port, address, hang_up, accepted))
            config = NetworkConfig("db.example", port, retries=6, retry_delay=0, on_connect=answers)
            with pytest.raises(ConnectError, match="7 attempts"):
                await NetworkClient(config).connect()
            assert accepted == [FIRST, SECOND, THIRD, FIRST, SECOND, THIRD, FIRST]


async def test_an_address_that_failed_is_used_again_where_no_other_answers() -> None:
    accepted: list[str] = []
    with reserved_ports(1) as [port], names({"db.example": [FIRST, SECOND]}):
        async with serving(port, FIRST, hang_up, accepted):
            config = NetworkConfig("db.example", port, retries=3, retry_delay=0, on_connect=answers)
            with pytest.raises(ConnectError, match="4 attempts"):
                await NetworkClient(config).connect()
            # Each attempt asks the second one, which refuses, and comes back.
            assert accepted == [FIRST] * 4


async def test_an_address_that_failed_is_used_again_where_the_others_are_silent() -> None:
    verdicts = iter([EOFError("not yet"), None])
    tried: list[str] = []

    def make(address: AddressInfo) -> socket.socket:
        tried.append(address[4][0])
        return socket.socket(*address[:3])

    async def works_the_second_time(connection: NetworkClient) -> None:
        if (error := next(verdicts)) is not None:
            raise error

    with contextlib.ExitStack() as stack:
        [port] = stack.enter_context(reserved_ports(1))
        stack.enter_context(names({"db.example": [FIRST, SECOND]}))
        deaf = stack.enter_context(socket.socket())
        deaf.bind((SECOND, port))
        deaf.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((SECOND, port))
        async with serving(port, FIRST, echo, []):
            settings = {"retries": 2, "retry_delay": 0, "on_connect": works_the_second_time, "socket_factory": make}
            # One address at a time, also where the machine stops.
            client = NetworkClient(NetworkConfig("db.example", port, happy_eyeballs_delay=60, **settings))
            connecting = asyncio.create_task(client.connect())
            await until(lambda: tried == [FIRST, SECOND], "the second attempt has begun")
            end_limits()
            await connecting
            async with client:
                assert client.remote_address == (FIRST, port)
                assert client.stats.retries == 2
            assert tried == [FIRST, SECOND, FIRST]


@pytest.mark.usefixtures("far")
async def test_a_reconnecting_client_leaves_an_address_that_hangs_up_for_the_next() -> None:
    accepted: list[str] = []
    with reserved_ports(1) as [port], names({"db.example": [FIRST, SECOND]}) as asked:
        async with serving(port, FIRST, hang_up, accepted), serving(port, SECOND, echo, accepted):
            # One address at a time, also where the machine stops.
            config = reconnecting(port, happy_eyeballs_delay=60).config.replace(host="db.example")
            async with NetworkClient(config), asyncio.timeout(10):
                await until(lambda: accepted[-1] == SECOND, "it is connected to the next")
                assert len(accepted) <= 3
                # Anew after each loss: the server may have moved.
                assert asked["db.example"] == len(accepted)


# ---- The race ----


def _addresses(*hosts: str, port: int = 1) -> list[AddressInfo]:
    return [
        (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts
    ]


def test_the_families_take_turns_and_keep_their_order() -> None:
    mixed = _addresses("::1", "::2", "::3", "127.0.0.1", "127.0.0.2")
    assert [info[4][0] for info in interleaved(mixed)] == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"]


async def test_of_two_that_connect_at_once_one_is_closed() -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    together = asyncio.Event()

    async def connect(info: AddressInfo) -> socket.socket:
        await together.wait()
        return pairs[info[4][1]][0]

    racing = asyncio.create_task(race(connect, _addresses("a", port=0) + _addresses("b", port=1), 0))
    for _ in range(5):
        await asyncio.sleep(0)
    together.set()
    sock, address = await racing
    assert (sock, address[4][1]) == (pairs[0][0], 0)
    assert pairs[1][0].fileno() == -1
    for pair in pairs:
        for end in pair:
            end.close()


async def test_the_next_address_begins_at_once_when_the_one_before_has_failed() -> None:
    async with echo_server() as port:
        with names({"two.example": [SECOND, FIRST]}):
            client = NetworkClient(NetworkConfig("two.example", port, retries=0, happy_eyeballs_delay=60))
            async with client, asyncio.timeout(10):
                assert client.remote_address == (FIRST, port)


async def test_where_all_fail_the_error_names_each_and_is_that_of_the_last_one_tried() -> None:
    reasons: dict[str, OSError] = {
        "a": OSError(errno.ECONNREFUSED, "refused"), "b": OSError(errno.EACCES, "not allowed"), "c": OSError("odd"),
    }  # fmt: skip

    async def connect(info: AddressInfo) -> socket.socket:
        if info[4][0] == last:
            # The address that is tried last fails first.
            failed.set()
            raise reasons[info[4][0]]
        await failed.wait()
        raise reasons[info[4][0]]

    failed = asyncio.Event()
    for last, kind, number in (("b", PermissionError, errno.EACCES), ("a", ConnectionRefusedError, errno.ECONNREFUSED)):
        order = [name for name in reasons if name != last] + [last]
        with pytest.raises(kind, match="every address failed") as caught:
            await race(connect, _addresses(*order), 0)
        assert caught.value.errno == number
        assert all(word in str(caught.value) for word in ("refused", "not allowed", "odd"))
        assert may_pass(caught.value), "one of them may"
    last, reasons["c"] = "b", OSError(errno.EACCES, "denied")
    with pytest.raises(PermissionError) as caught:
        await race(connect, _addresses("c", "b"), 0)
    assert not may_pass(caught.value), "none of them may"


@pytest.mark.parametrize("mode", Mode)
async def test_a_race_that_is_cancelled_leaves_no_socket(mode: Mode) -> None:
    before = open_sockets()
    with socket.create_server((FIRST, 0)) as listener, names({"two.example": [SECOND, FIRST]}):
        config = NetworkConfig("two.example", listener.getsockname()[1], retries=0, happy_eyeballs_delay=0)
        number = 1
        while True:
            client = NetworkClient(config)
            outcome = await cancelled_at(client.connect(), number, mode)
            client.abort()
            for _ in range(3):
                await asyncio.sleep(0)
            assert open_sockets() - before == open_sockets_of(listener)
            if not outcome.cancelled:
                break
            number += 1
        assert number > 2


def open_sockets_of(listener: socket.socket) -> set[str]:
    return {os.readlink(f"/proc/self/fd/{listener.fileno()}")}


# ---- Connected to itself ----


async def test_a_connection_to_itself_counts_as_refused_and_leaves_the_port_free() -> None:
    with reserved_ports(1) as [port]:
        client = client_of(port, local_address=(FIRST, port), retries=1, retry_delay=0)
        with pytest.raises(ConnectError, match=r"connected to itself \(2 attempts") as caught:
            await client.connect()
    assert caught.value.errno == errno.ECONNREFUSED
    with socket.socket() as server:
        # Without SO_REUSEADDR: nothing is left in TIME_WAIT.
        server.bind((FIRST, port))


# ---- Socket options ----


async def test_an_option_of_one_family_is_set_on_sockets_of_that_family_only() -> None:
    options = ((socket.IPPROTO_IP, socket.IP_TOS, 0x28), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x48))
    for host, level, option, value in (
        ("127.0.0.1", socket.IPPROTO_IP, socket.IP_TOS, 0x28),
        ("::1", socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x48),
    ):
        server = await asyncio.start_server(lambda _, writer: writer.close(), host, 0)
        async with server:
            config = NetworkConfig(host, server.sockets[0].getsockname()[1], retries=0, socket_options=options)
            async with NetworkClient(config) as client:
                assert client._link.protocol.extra_info("socket").getsockopt(level, option) == value
                await client.receive()


async def test_an_option_that_the_system_refuses_is_named() -> None:
    client = client_of(1, socket_options=((socket.SOL_SOCKET, 9999, 1),))
    with pytest.raises(ConnectError, match=r"socket_options \(1, 9999, 1\)"):
        await client.connect()


async def test_a_fixed_local_port_can_be_used_again_at_once() -> None:
    with reserved_ports(1) as [local]:
        for _ in range(2):
            # Another server each time; this side closes first, so TIME_WAIT is here.
            async with peer_and_client(local_address=(FIRST, local)) as (peer, client):
                assert client.local_address == (FIRST, local)
                await client.disconnect()
                assert await peer.receive_all() == b""


async def test_a_local_address_that_cannot_be_used_is_named() -> None:
    async with echo_server() as port:
        with pytest.raises(ConnectError, match=r"local_address.*another family"):
            await client_of(port, local_address=("::1", 0)).connect()
        with pytest.raises(ConnectError, match=r"assign.*local_address \('192\.0\.2\.1', 0\)"):
            await client_of(port, local_address=("192.0.2.1", 0)).connect()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is of Linux")
@pytest.mark.parametrize(
    ("settings", "milliseconds"),
    [
        ({}, 150_000),
        ({"keepalive": Keepalive(idle=1, interval=2, count=3)}, 7_000),
        ({"keepalive": Keepalive(idle=32767, interval=32767, count=127)}, 2_147_483_000),
        ({"keepalive": Keepalive(idle=1, user_timeout=60)}, 60_000),
        ({"keepalive": Keepalive(user_timeout=None)}, 0),
    ],
)
async def test_the_user_timeout_is_when_keepalive_gives_up_unless_it_is_set(
    settings: dict[str, float], milliseconds: int
) -> None:
    async with peer_and_client(**settings) as (_, client):
        sock = client._link.protocol.extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


# ---- Zones of link-local addresses ----


async def test_a_zone_is_looked_up_by_its_name_or_number_and_is_no_part_of_the_tls_name() -> None:
    index, name = socket.if_nameindex()[0]
    for zone in (name, str(index)):
        [(*_, address)] = await look_up(f"fe80::1%{zone}", 5025)
        assert address == ("fe80::1", 5025, 0, index)
    assert NetworkConfig(f"fe80::1%{name}", 5025, tls=True).tls_name == "fe80::1"
    with pytest.raises(ConnectError, match="no interface 'nowhere'"):
        await NetworkClient(NetworkConfig("fe80::1%nowhere", 1, retries=3)).connect()


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("fe80::1%25eth0", "fe80::1%eth0"),
        ("fe80::1%2525", "fe80::1%25"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("fe80::1%25", "fe80::1%25"),
        ("::1", "::1"),
    ],
)
def test_in_a_url_the_percent_sign_of_a_zone_is_escaped(written: str, host: str) -> None:
    assert NetworkConfig.from_url(f"tcp://[{written}]:1").host == host
    proxy = read_proxy(f"socks5h://[{written}]:1080")
    assert (proxy.host, read_proxy(proxy.shown).host) == (host, host)


@pytest.mark.slow
@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_link_local_address_connects_by_its_zone_alone_and_in_a_race(loop_name: str) -> None:
    # In a network of its own, whose loopback has the address twice.
    addresses = "ip link set lo up && ip addr add fe80::1/64 dev lo nodad && ip addr add fe80::2/64 dev lo nodad"
    script = (
        f"{addresses} && exec {sys.executable} {Path(__file__).parents[1] / 'support' / 'zone_client.py'} {loop_name}"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"this system gives no network namespace: {done.stderr.strip()}")
    assert done.stdout == "alone fe80::1, in a race fe80::2\n", done.stderr


async def test_a_name_to_connect_from_that_is_unknown_is_named_with_its_field() -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with names({"here.test": unknown}):
        client = client_of(1, local_address=("here.test", 0))
        with pytest.raises(ConnectError, match=r"not known: local_address \('here\.test', 0\)") as caught:
            await client.connect()
    assert isinstance(caught.value.__cause__, socket.gaierror)


async def test_an_error_of_a_getaddrinfo_that_is_not_the_systems_keeps_its_words() -> None:
    class Refused(OSError):
        def __init__(self, *, host: str) -> None:
            super().__init__(f"{host} is on no list")

    with names({"here.test": Refused(host="here.test")}):
        with pytest.raises(ConnectError, match=r"here\.test is on no list"):
            await client_of(1, local_address=("here.test", 0)).connect()
