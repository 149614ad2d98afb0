"""What `NetworkConfig.on_event` is told, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import itertools
import socket
import time
import warnings
import weakref

import pytest
from support.cancelling import until
from support.limits import end_limits
from support.mortal import echo, mortal_and_client, silence
from support.names import names
from support.proxies import PROXY_CREDENTIALS, Tinyproxy
from support.seen import Seen, failing
from support.servers import client_of, echo_server, full_listener, peer_and_client
from support.tls_peer import TRANSPORTS, tls_client_of, tls_peer_and_client, use_transport

from pepperpy.network import (
    AttemptDone,
    ConnectDone,
    ConnectError,
    Event,
    Heartbeat,
    HeartbeatDone,
    LookupDone,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    ProxyDone,
    Reconnect,
    StateChanged,
    TLSDone,
    TLSError,
)
from pepperpy.network.events import Observer
from pepperpy.network.lookup import AddressInfo

CONNECTED = ["connecting", "LookupDone", "ConnectDone", "AttemptDone", "connected"]


async def test_a_connection_is_told_step_by_step_and_each_step_says_when_where_and_how_long() -> None:
    seen = Seen()
    before = time.monotonic()
    async with echo_server() as port, client_of(port, on_event=seen):
        pass
    assert seen.names == [*CONNECTED, "closed"]
    assert len({event.id for event in seen.events}) == 1
    assert {(event.host, event.port) for event in seen.events} == {("127.0.0.1", port)}
    assert [event.attempt for event in seen.events] == [0, 1, 1, 1, 0, 0]
    times = [event.at for event in seen.events]
    assert before <= times[0] and times == sorted(times) and times[-1] <= time.monotonic()
    attempt, connect, lookup = seen.one(AttemptDone), seen.one(ConnectDone), seen.one(LookupDone)
    assert 0 <= lookup.seconds <= attempt.seconds <= attempt.at - before
    assert 0 <= connect.seconds <= attempt.seconds
    assert (connect.address, lookup.addresses, attempt.retry_in) == ("127.0.0.1", ("127.0.0.1",), None)
    assert {done.error for done in (attempt, connect, lookup)} == {None}


async def test_two_clients_have_ids_of_their_own() -> None:
    seen = Seen()
    async with echo_server() as port, client_of(port, on_event=seen), client_of(port, on_event=seen):
        assert len({event.id for event in seen.events}) == 2


async def test_a_step_began_at_its_end_less_its_seconds_however_slow_the_machine_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = itertools.count(100.0)
    monkeypatch.setattr("pepperpy.network.events.monotonic", lambda: next(reads))
    seen = Seen()
    await Observer(seen, "a.test", 1).timed(asyncio.sleep(0), TLSDone)
    event = seen.one(TLSDone)
    assert (event.at, event.seconds) == (101.0, 1.0)


async def test_each_address_of_a_race_is_told_the_slower_one_as_cancelled() -> None:
    seen = Seen()
    sockets: list[socket.socket] = []

    def make(address: AddressInfo) -> socket.socket:
        sockets.append(socket.socket(*address[:3]))
        return sockets[-1]

    with full_listener() as full, names({"two.test": ["127.0.0.2", "127.0.0.1"]}):
        # Of the second address nobody answers; of the first nobody listens.
        config = NetworkConfig("two.test", full, retries=0, on_event=seen, socket_factory=make)
        connecting = asyncio.create_task(NetworkClient(config).connect())
        await until(lambda: len(sockets) == 2, "the second address has begun")
        over = time.monotonic()
        end_limits()
        with pytest.raises(NetworkTimeoutError):
            await connecting
    refused, cancelled = seen.all(ConnectDone)
    assert isinstance(refused.error, ConnectionRefusedError) and refused.address == "127.0.0.2"
    assert isinstance(cancelled.error, asyncio.CancelledError) and cancelled.address == "127.0.0.1"
    # It began when the first one had failed, before the time was over, and lasted until then.
    assert refused.at <= cancelled.at - cancelled.seconds <= over <= cancelled.at
    assert seen.one(LookupDone).addresses == ("127.0.0.2", "127.0.0.1")


async def test_failed_attempts_are_told_with_the_wait_that_follows_and_the_last_one_with_none() -> None:
    seen = Seen()
    client = client_of(1, retries=2, retry_delay=0.001, on_event=seen)
    with pytest.raises(ConnectError) as caught:
        await client.connect()
    first, second, last = seen.all(AttemptDone)
    assert [first.attempt, second.attempt, last.attempt] == [1, 2, 3]
    assert isinstance(first.error, ConnectionRefusedError)
    assert first.retry_in is not None and second.retry_in is not None
    assert 0 <= first.retry_in <= 0.001 and 0 <= second.retry_in <= 0.002
    assert last.error is caught.value and last.retry_in is None
    assert seen.names[-1] == "closed" and seen.all(StateChanged)[-1].error is caught.value


async def test_an_unknown_name_is_told() -> None:
    seen = Seen()
    with names({"none.test": socket.gaierror(socket.EAI_NONAME, "no such name")}):
        with pytest.raises(ConnectError):
            await NetworkClient(NetworkConfig("none.test", 1, on_event=seen)).connect()
    assert isinstance(seen.one(LookupDone).error, socket.gaierror)
    assert seen.one(LookupDone).addresses == ()
    assert seen.names == ["connecting", "LookupDone", "AttemptDone", "closed"]


async def test_of_several_hosts_each_event_names_its_own() -> None:
    seen = Seen()
    async with echo_server() as port, client_of(1, hosts=(("127.0.0.1", port),), on_event=seen):
        refused, connected = seen.all(ConnectDone)
        assert (refused.port, connected.port) == (1, port)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_handshake_is_told(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_transport(monkeypatch, transport)
    seen = Seen()
    async with tls_peer_and_client(on_event=seen, server_hostname="localhost") as (_, client):
        assert seen.names == [*CONNECTED[:3], "TLSDone", *CONNECTED[3:]]
        done = seen.one(TLSDone)
        assert client.tls is not None and done.version == client.tls.version
        assert done.error is None and done.seconds > 0


async def test_a_handshake_that_fails_is_told() -> None:
    seen = Seen()
    async with echo_server() as port:
        # It answers the client's own words.
        with pytest.raises(TLSError):
            await tls_client_of(port, on_event=seen, server_hostname="localhost").connect()
    assert isinstance(seen.one(TLSDone).error, TLSError)
    assert seen.one(TLSDone).version == ""


async def test_a_proxy_is_told_and_not_its_password(locked_proxy: Tinyproxy) -> None:
    seen = Seen()
    user, password = PROXY_CREDENTIALS
    url = f"http://{user}:{password}@127.0.0.1:{locked_proxy.port}"
    async with echo_server() as port, client_of(port, proxy=url, on_event=seen):
        assert seen.names == [*CONNECTED[:3], "ProxyDone", *CONNECTED[3:]]
        done = seen.one(ProxyDone)
        assert (done.host, done.port) == ("127.0.0.1", port)
        assert (seen.one(ConnectDone).port, seen.one(LookupDone).port) == (locked_proxy.port, locked_proxy.port)
        assert done.proxy.endswith(f"127.0.0.1:{locked_proxy.port}")
        assert password not in repr(seen.events)


async def test_a_unix_socket_is_told_by_its_path(redis_path: str) -> None:
    seen = Seen()
    async with NetworkClient(NetworkConfig(unix_path=redis_path, on_event=seen)):
        assert seen.names == ["connecting", "ConnectDone", "AttemptDone", "connected"]
        assert {(event.host, event.port) for event in seen.events} == {(redis_path, 0)}
        assert seen.one(ConnectDone).address == redis_path


async def test_a_loss_and_the_next_connection_are_told_with_their_reasons() -> None:
    seen = Seen()
    async with mortal_and_client(echo, on_event=seen, retry_delay=0.01) as (server, client):
        assert seen.take() == CONNECTED
        await until(lambda: bool(server.writers), "it has accepted")
        server.drop(reset=True)
        with pytest.raises(ConnectionError):
            await client.receive()
        await client.wait_connected()
        assert seen.names == ["lost", *CONNECTED[1:]]
        assert isinstance(seen.all(StateChanged)[0].error, ConnectionResetError)
        assert seen.one(AttemptDone).attempt == 1


async def test_attempts_of_a_client_that_reconnects_are_told_until_it_gives_up() -> None:
    seen = Seen()
    async with mortal_and_client(echo, on_event=seen, retry_delay=0.001, reconnect=Reconnect(attempts=2)) as (
        server,
        client,
    ):
        seen.take()
        await until(lambda: bool(server.writers), "it has accepted")
        await server.kill()
        with pytest.raises(ConnectionError):
            await client.receive()
        with pytest.raises(ConnectError):
            await client.wait_connected()
        first, last = seen.all(AttemptDone)
        assert (first.attempt, last.attempt) == (1, 2)
        assert first.retry_in is not None and last.retry_in is None
        assert isinstance(last.error, ConnectError)


async def test_a_heartbeat_is_told_and_its_round_trip_counted() -> None:
    async def ask(connection: NetworkClient) -> None:
        await connection.request(b"ping\n", NetworkClient.receive_line)

    seen = Seen()
    beaten = asyncio.Event()

    def on_event(event: Event) -> None:
        seen(event)
        if isinstance(event, HeartbeatDone):
            beaten.set()

    beat = Heartbeat(ask, interval=0.01, timeout=10)
    async with echo_server() as port, client_of(port, on_event=on_event, heartbeat=beat) as client:
        assert client.stats.heartbeat_rtt is None
        await beaten.wait()
        done = seen.all(HeartbeatDone)[0]
        assert done.error is None and done.seconds > 0
        assert client.stats.heartbeat_rtt is not None and 0 < client.stats.heartbeat_rtt < 10


async def test_a_probe_that_does_not_wait_for_its_answer_has_no_round_trip() -> None:
    beaten = asyncio.Event()

    async def ask(connection: NetworkClient) -> None:
        beaten.set()

    async with peer_and_client(heartbeat=Heartbeat(ask, interval=0.01, timeout=10)) as (_, client):
        await beaten.wait()
        await asyncio.sleep(0)
        assert client.stats.heartbeat_rtt is None


async def test_a_silent_peer_is_told_as_lost_by_its_heartbeat() -> None:
    async def ask(connection: NetworkClient) -> None:
        await connection.request(b"ping\n", NetworkClient.receive_line, None)

    seen = Seen()
    beat = Heartbeat(ask, interval=0.01, timeout=0.02)
    async with mortal_and_client(silence, on_event=seen, heartbeat=beat, reconnect=False) as (_, client):
        with pytest.raises(ConnectionError):
            await client.wait_closed()
            await client.receive()
        assert isinstance(seen.all(StateChanged)[-1].error, NetworkTimeoutError)


# ---- Nothing depends on it ----


async def test_an_on_event_that_raises_changes_nothing_and_is_reported_to_the_loop() -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with echo_server() as port, client_of(port, on_event=failing, reconnect=True) as client:
        await client.send(b"x")
        assert await client.receive() == b"x"
    assert {type(context["exception"]) for context in reported} == {ValueError}
    assert {context["message"] for context in reported} == {"on_event raised ValueError"}
    assert len(reported) == 6


async def test_a_client_with_an_on_event_of_its_own_can_be_collected() -> None:
    class Owner:
        def __init__(self, port: int) -> None:
            self.client = client_of(port, on_event=self.note)

        def note(self, event: Event) -> None:
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        owner = Owner(listener.getsockname()[1])
        await owner.client.connect()
        reference = weakref.ref(owner)
        del owner
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        assert reference() is None


async def test_events_are_frozen_and_can_be_copied() -> None:
    seen = Seen()
    async with echo_server() as port, client_of(port, on_event=seen):
        pass
    for event in seen.events:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.at = 1.0  # type: ignore[misc]
        assert copy.copy(event) == event


async def test_a_cancelled_connect_is_told() -> None:
    seen = Seen()
    with full_listener() as port:
        task = asyncio.create_task(client_of(port, on_event=seen).connect())
        while "LookupDone" not in seen.names:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert isinstance(seen.one(ConnectDone).error, asyncio.CancelledError)
    assert isinstance(seen.one(AttemptDone).error, asyncio.CancelledError)
    assert seen.names[-1] == "closed"
