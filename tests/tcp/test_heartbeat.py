"""The heartbeat: when it comes, what counts as an answer, and what a peer that does not answer is."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.cancelling import arrived, until
from support.loops import begin_tasks_at_once, needs_eager_tasks
from support.mortal import echo, mortal_and_client, mortal_server, reconnecting, silence
from support.processes import reserved_ports
from support.servers import peer_and_client

from pepperpy.network import (
    BufferLimits,
    BusyError,
    ClosedError,
    ConnectionLostError,
    Delimited,
    Heartbeat,
    NetworkClient,
    NetworkTimeoutError,
)
from pepperpy.network.tcp.heartbeat import Heartbeats

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


class Ping:
    """A heartbeat that sends one line and counts."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, connection: NetworkClient) -> None:
        self.count += 1
        await connection.send(b"ping\n")


def settings(heartbeat: object, interval: float = 0.02, timeout: float = 0.03, **more: object) -> dict[str, object]:
    return {"heartbeat": Heartbeat(heartbeat, interval=interval, timeout=timeout)} | more


def heartbeats_of(client: NetworkClient) -> Heartbeats:
    supervisor = client._link.supervisor
    assert supervisor is not None and supervisor._heartbeats is not None
    return supervisor._heartbeats


async def test_a_peer_that_answers_is_asked_again_and_again_and_stays_connected() -> None:
    """Each time after `interval`, however long it might take to answer."""
    ping = Ping()
    async with mortal_and_client(echo, **settings(ping, timeout=60, reconnect=False)) as (_, client):
        await until(lambda: ping.count == 3, "three heartbeats")
        await arrived(client, 15)
        # Nobody received meanwhile; the answers count all the same, and are there.
        assert await client.receive_exactly(15) == b"ping\n" * 3
        assert client.is_connected


async def test_a_new_configuration_does_not_change_the_heartbeat_of_the_present_connection() -> None:
    ping = Ping()
    async with mortal_and_client(echo, **settings(ping, timeout=60, reconnect=False)) as (_, client):
        client.config = client.config.replace(heartbeat=None)
        await until(lambda: ping.count == 3, "three heartbeats")
        assert client.is_connected


async def test_a_task_that_receives_gets_the_answers_undisturbed() -> None:
    ping = Ping()
    async with mortal_and_client(echo, **settings(ping)) as (_, client):
        for _ in range(3):
            assert await client.receive_line() == b"ping\n"
        assert ping.count == 3


async def test_a_silent_peer_is_lost_for_the_task_that_waits_and_for_all_later_calls() -> None:
    async with mortal_and_client(silence, **settings(Ping(), reconnect=False)) as (_, client):
        for call in (client.receive(), client.receive(), client.send(b"x"), client.flush()):
            with pytest.raises(
                ConnectionLostError, match=r"the peer did not answer within Heartbeat.timeout=0\.03"
            ) as e:
                await call
            assert isinstance(e.value.__cause__, NetworkTimeoutError)
        assert not client.is_connected


async def test_a_reconnecting_client_replaces_the_connection_of_a_silent_peer() -> None:
    async with mortal_and_client(silence, **settings(Ping())) as (server, client):
        with pytest.raises(ConnectionLostError, match="did not answer"):
            await client.receive()
        server.handler = echo
        await until(lambda: client.stats.connects >= 2, "a new connection")
        assert server.accepted >= 2


@pytest.mark.parametrize("traffic", ["out", "in", "none"])
async def test_traffic_in_either_direction_keeps_the_heartbeat_away(traffic: str) -> None:
    ping = Ping()
    async with peer_and_client(**settings(ping, interval=60, timeout=60)) as (peer, client):
        beats = heartbeats_of(client)
        beats._started -= 100  # the connection was made before the last interval
        if traffic == "out":
            await client.send(b"out")
        elif traffic == "in":
            await peer.send(b"in")
            await client.receive()
        now = time.monotonic()
        beats._timer.look_by(now)
        await until(lambda: beats._timer.at > now, "it has looked")
        if traffic == "none":
            await until(lambda: ping.count == 1, "a heartbeat")
        else:
            assert (ping.count, beats._judging) == (0, False)


async def test_while_reading_is_paused_nothing_is_concluded() -> None:
    ping = Ping()
    high = {"buffers": BufferLimits(receive_high=1000, receive_low=10)}
    async with peer_and_client(**settings(ping, interval=60, timeout=60, **high)) as (peer, client):
        await peer.send(b"x" * 1000)
        await until(lambda: client._link.protocol.receiver.reading_paused, "reading is paused")
        beats = heartbeats_of(client)
        beats._interval, beats._timeout = 0.02, 0.03
        beats._timer.look_by(time.monotonic())
        # Longer than the interval and the time for an answer together.
        await asyncio.sleep(0.15)
        assert client.is_connected
        assert ping.count == 0
        assert await client.receive_exactly(1000) == b"x" * 1000
        # Now it can be told that the peer is silent.
        with pytest.raises(ConnectionLostError, match="did not answer"):
            await client.receive()
        assert ping.count == 1


async def test_a_heartbeat_that_raises_ends_the_connection_with_it_as_the_cause() -> None:
    async def bad_answer(connection: NetworkClient) -> None:
        await connection.send(b"ping\n")
        if await connection.receive_line() != b"pong\n":
            raise ValueError("no pong")

    async with mortal_and_client(echo, **settings(bad_answer, reconnect=False)) as (_, client):
        await until(lambda: not client.is_connected, "the connection is lost")
        with pytest.raises(ConnectionLostError, match="no pong") as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, ValueError)


async def test_a_heartbeat_that_receives_where_a_task_does_is_refused_and_says_so() -> None:
    async def ask(connection: NetworkClient) -> None:
        await connection.receive()

    async with mortal_and_client(silence, **settings(ask, reconnect=False)) as (_, client):
        with pytest.raises(ConnectionLostError, match="another task is already receiving") as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, BusyError)


async def test_a_heartbeat_that_hangs_ends_the_connection_and_is_cancelled() -> None:
    ended: list[BaseException] = []

    async def hang(connection: NetworkClient) -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise

    async with mortal_and_client(silence, **settings(hang, reconnect=False)) as (_, client):
        with pytest.raises(ConnectionLostError, match=r"the heartbeat was not done within Heartbeat.timeout=0\.03 s"):
            await client.receive()
        await until(lambda: len(ended) == 1, "it is cancelled")
        assert isinstance(ended[0], asyncio.CancelledError)


@pytest.mark.parametrize("end", ["disconnect", "abort", "loss"])
async def test_the_end_of_the_connection_ends_its_heartbeat(end: str) -> None:
    begun = asyncio.Event()

    async def hang(connection: NetworkClient) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with mortal_and_client(silence, **settings(hang, timeout=60, reconnect=False)) as (server, client):
        await begun.wait()
        if end == "loss":
            server.drop(reset=True)
        else:
            await client.disconnect() if end == "disconnect" else client.abort()
        await until(lambda: not any("_beat" in repr(task) for task in asyncio.all_tasks()), "no task is left")


async def test_an_answer_that_came_while_the_loop_was_held_up_is_an_answer() -> None:
    ping = Ping()
    async with (
        peer_and_client() as (other_peer, other),
        peer_and_client(**settings(ping, timeout=0.05)) as (peer, client),
    ):

        async def hold_up() -> None:
            # Runs inside the loop's reading, with the answer in the socket.
            await other.receive()
            peer.sock.send(b"pong\n")
            time.sleep(0.07)  # past the time of the verdict

        for number in range(1, 4):
            await until(lambda n=number: ping.count == n, "a heartbeat")
            assert await peer.receive(5) == b"ping\n"
            holding = asyncio.create_task(hold_up())
            await asyncio.sleep(0)
            await other_peer.send(b"x")
            assert await client.receive_line() == b"pong\n"
            await holding


async def test_the_heartbeat_takes_no_news_from_the_users_tasks() -> None:
    ping = Ping()
    async with mortal_and_client(echo, **settings(ping, timeout=5)) as (server, client):
        server.drop()
        await until(lambda: not client.is_connected, "the loss")
        before = ping.count
        await until(lambda: ping.count > before, "a heartbeat on the new connection")
        for call in (client.send(b"x"), client.receive()):
            with pytest.raises(ConnectionLostError):
                await call


@pytest.mark.parametrize("end", ["disconnect", "abort"])
async def test_a_heartbeat_that_closes_the_connection_closes_the_client(end: str) -> None:
    async def close(connection: NetworkClient) -> None:
        await connection.disconnect() if end == "disconnect" else connection.abort()

    async with mortal_and_client(silence, **settings(close)) as (server, client):
        with pytest.raises(ClosedError):
            await client.receive()
        for call in (client.wait_connected, client.receive, lambda: client.send(b"x")):
            with pytest.raises(ClosedError):
                await call()  # type: ignore[operator]
        await client.connect()
        assert server.accepted == 2


async def test_the_requests_of_the_heartbeat_and_of_the_client_take_turns() -> None:
    begun = asyncio.Event()
    replies: list[bytes] = []

    async def ping(connection: NetworkClient) -> None:
        begun.set()
        replies.append(await connection.request(b"ping\n", NetworkClient.receive_line))

    async with mortal_and_client(echo, **settings(ping, timeout=5, reconnect=False)) as (_, client):
        await begun.wait()
        assert await client.request(b"mine\n", NetworkClient.receive_line) == b"mine\n"
        assert client.is_connected and replies == [b"ping\n"]


async def test_a_request_that_takes_longer_than_the_heartbeats_times_is_not_disturbed() -> None:
    ping, asked, long_over = Ping(), asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"sum?\n"
        asked.set()
        await long_over.wait()
        writer.write(b"42\n")
        await reader.read()

    async with mortal_and_client(slow, **settings(ping, interval=60, timeout=0.02, reconnect=False)) as (_, client):
        asking = asyncio.create_task(client.request(b"sum?\n", NetworkClient.receive_line))
        await asked.wait()
        # From now on, so that none comes before the request however long the machine holds it up.
        beats = heartbeats_of(client)
        beats._interval = 0.01
        beats._timer.look_by(time.monotonic())
        for _ in range(5):
            last = beats._task
            await until(lambda last=last: beats._task is not last, "a heartbeat is due")
        assert ping.count == 0
        long_over.set()
        assert await asking == b"42\n"
        await until(lambda: ping.count > 0, "the heartbeat goes on afterwards")


@needs_eager_tasks
async def test_a_heartbeat_rests_as_well_where_tasks_begin_at_once() -> None:
    ping = Ping()
    begin_tasks_at_once()
    # With the verdict due before the next look.
    async with peer_and_client(**settings(ping, interval=0.05, timeout=0.01)) as (peer, client):
        asking = asyncio.create_task(client.request(b"sum?\n", NetworkClient.receive_line))
        assert await peer.receive(5) == b"sum?\n"
        # Much longer than all that the heartbeat has.
        await asyncio.sleep(0.2)
        await peer.send(b"42\n")
        assert await asking == b"42\n"
        assert ping.count == 0


@needs_eager_tasks
async def test_a_heartbeat_that_closes_its_client_is_cancelled_as_well_where_tasks_begin_at_once() -> None:
    ended: list[BaseException] = []

    async def close(connection: NetworkClient) -> None:
        client.abort()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    begin_tasks_at_once()
    async with peer_and_client(**settings(close, timeout=5)) as (_, client):
        await until(lambda: len(ended) == 1, "it is cancelled")


async def test_in_a_pipeline_the_answer_to_the_heartbeat_goes_to_on_push() -> None:
    async def ping(connection: NetworkClient) -> None:
        await connection.send(b"0 ping\n")

    pushes: list[bytes] = []
    async with peer_and_client(**settings(ping, timeout=5)) as (peer, client):
        async with client.pipeline(
            Delimited(b"\n"), key=lambda message: message[:1], on_push=pushes.append
        ) as pipeline:
            assert await peer.receive(7) == b"0 ping\n"
            asking = asyncio.create_task(pipeline.request(b"1 q"))
            assert await peer.receive(4) == b"1 q\n"
            await peer.send(b"0 pong\n1 reply\n")
            assert await asking == b"1 reply"
        assert pushes == [b"0 pong"]


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "silent"])
async def test_a_request_that_came_before_that_of_the_heartbeat_has_its_time_and_so_has_the_heartbeat(
    is_answered: bool,
) -> None:
    """Judged in the moment in which its own request begins, it has all of `timeout` once more."""
    begun = asyncio.Event()
    answers: list[bytes] = []

    async def prepared_ping(connection: NetworkClient) -> None:
        begun.set()
        await asyncio.sleep(0)
        answers.append(await connection.request(b"ping\n", NetworkClient.receive_line))

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"sum?\n"
        # All that the heartbeat has is over, and the request is not answered yet.
        for _ in range(2):
            beats._judge()
        writer.write(b"42\n")
        await (echo if is_answered else silence)(reader, writer)

    # Judged by hand: the time itself never comes.
    never = settings(prepared_ping, interval=60, timeout=60, reconnect=False)
    async with mortal_and_client(slow, **never) as (_, client):
        # It begins while this task waits for that: then this task's request comes before the heartbeat's own.
        beats = heartbeats_of(client)
        beats._interval = 0.0
        beats._timer.look_by(time.monotonic())
        await begun.wait()
        beats._interval = 60.0
        assert await client.request(b"sum?\n", NetworkClient.receive_line) == b"42\n"
        beats._judge()
        if is_answered:
            await until(lambda: answers == [b"ping\n"], "then the heartbeat has its turn")
            assert client.is_connected
        else:
            waiting = asyncio.create_task(client.request(b"x\n", NetworkClient.receive_line))
            await asyncio.sleep(0)
            assert client.is_connected
            beats._judge()
            with pytest.raises(ConnectionLostError, match="heartbeat was not done within"):
                await waiting


@pytest.mark.parametrize("reconnect", [False, True])
async def test_requests_that_wait_for_that_of_an_unanswered_heartbeat_are_told_of_the_silence(reconnect: bool) -> None:
    begun = asyncio.Event()

    async def ping(connection: NetworkClient) -> None:
        begun.set()
        await connection.request(b"ping\n", NetworkClient.receive_line)

    async with mortal_and_client(silence, **settings(ping, reconnect=reconnect)) as (_, client):
        await begun.wait()
        waiting = [asyncio.create_task(client.request(b"x\n", NetworkClient.receive_line)) for _ in range(2)]
        for task in waiting:
            with pytest.raises(ConnectionLostError, match="heartbeat was not done within") as caught:
                await task
            assert isinstance(caught.value.__cause__, NetworkTimeoutError)


async def test_the_error_names_the_host_that_was_silent() -> None:
    async with mortal_server(silence) as server:
        with reserved_ports(1) as [nobody]:
            client = reconnecting(nobody, hosts=(("127.0.0.1", server.port),), **settings(Ping(), reconnect=False))
            async with client:
                with pytest.raises(ConnectionLostError) as caught:
                    await client.receive()
        assert isinstance(caught.value.__cause__, NetworkTimeoutError)
        assert caught.value.__cause__.details["port"] == server.port
