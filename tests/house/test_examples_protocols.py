"""rpc.py, line_protocol.py and starttls.py of `examples/`, each against a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import functools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.certificates import ca_file, server_cert, server_context
from support.examples import EXAMPLES, example, output
from support.mortal import Mortal, mortal_server
from support.processes import reserved_ports, server_process, wait_until
from support.proxies import listens

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    ProtocolError,
    TLSConfig,
    TLSError,
    serve,
)
from pepperpy.network.testing import Peer, scripted_peer

# ---- rpc.py ----


@pytest.mark.slow
def test_rpc_as_a_program_that_starts_its_own_server() -> None:
    lines = output("rpc.py")
    assert lines[0] == "1000 at once: 999000"
    assert [line.partition(":")[0] for line in lines[1:4]] == ["NetworkTimeoutError", "RPCError", "RPCError"]
    assert lines[4:] == ["and on: 42"]


@pytest.mark.slow
async def test_rpc_gives_each_call_its_own_answer_whatever_became_of_others() -> None:
    module, may_answer = example("rpc"), asyncio.Event()
    double = module.double

    async def when_allowed(number: float) -> float:
        await may_answer.wait()
        return float(await double(number))

    async with serve(module.handle) as server:
        port = server.port
        async with module.connected(NetworkConfig("127.0.0.1", port)) as rpc:
            # The later asked, the earlier answered.
            calls = [rpc.call("double", number, (20 - number) / 1000) for number in range(20)]
            assert await asyncio.gather(*calls) == [2 * number for number in range(20)]
            module.double = when_allowed
            with pytest.raises(NetworkTimeoutError):
                await rpc.call("double", 1, timeout=0.01)
            module.double = double
            with pytest.raises(module.RPCError, match="treble: KeyError"):
                await rpc.call("treble", 1)
            # Its answer comes behind the one that nobody waits for any more.
            may_answer.set()
            assert await rpc.call("double", 2) == 4
            cancelled = asyncio.create_task(rpc.call("double", 3, 60))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert await rpc.call("double", "x") == "xx"
        arguments = ("127.0.0.1", str(port), "double", '"ab"')
        assert await asyncio.to_thread(output, "rpc.py", *arguments) == ['"abab"']


async def test_rpc_calls_under_way_learn_of_the_loss_and_of_an_answer_that_is_none() -> None:
    module = example("rpc")

    async def loses(peer: Peer) -> None:
        await peer.receive_exactly(int.from_bytes(await peer.receive_exactly(4)))
        await peer.reset()

    async def answers_anything(peer: Peer) -> None:
        await peer.receive_exactly(int.from_bytes(await peer.receive_exactly(4)))
        await peer.send(b'\0\0\0\x0f{"result": 345}')

    async with scripted_peer(loses, answers_anything) as server:
        for cause in (ConnectionLostError, ProtocolError):
            async with module.connected(server.config) as rpc:
                with pytest.raises(ConnectionLostError) as caught:
                    await rpc.call("double", 1)
                assert isinstance(caught.value.__cause__, cause)


# ---- line_protocol.py ----


class IRCServer:
    """What an IRC server says to one who logs in and joins; `refusals` are said to the first connections instead."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)
        self.heard: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            if not writer.transport.is_closing():
                writer.write(line.encode() + b"\r\n")

        while line := (await reader.readline()).decode().strip():
            command, _, rest = line.partition(" ")
            if command == "USER":
                say(f":irc {self.refusals.pop(0)} * ada :no" if self.refusals else ":irc 001 ada :Welcome")
            elif command == "JOIN":
                say(f":bob!b@h PRIVMSG {rest} :hello\r\nPING :still there?")
            elif command == "PONG":
                self.heard.append(rest)
                say(":bob!b@h PRIVMSG #tea :fine")


async def until_line(lines: AsyncIterator[str], end: str) -> list[str]:
    """The lines up to one that ends so."""
    found: list[str] = []
    while not found or not found[-1].endswith(end):
        found.append(await anext(lines))
    return found


QUICK = {"tls": TLSConfig(ca_file=ca_file()), "timeout": 10, "retry_delay": 0.01, "max_retry_delay": 0.02}


async def test_the_line_client_goes_on_after_each_restart_of_its_server_logged_in_and_answering() -> None:
    module, irc = example("line_protocol"), IRCServer()
    async with mortal_server(irc, server_context(server_cert())) as server:
        async with NetworkClient(module.irc_config("127.0.0.1", server.port, "ada", "#tea", **QUICK)) as client:
            lines = module.messages(client)
            spoken = [":bob!b@h PRIVMSG #tea :hello", ":bob!b@h PRIVMSG #tea :fine"]
            assert await until_line(lines, ":fine") == spoken
            for _ in range(2):
                await server.kill()
                await server.start()
                lost, *rest = await until_line(lines, ":fine")
                assert lost.startswith("* ") and "is missed" in lost
                assert rest == spoken
            assert irc.heard == [":still there?"] * 3
            assert client.tls is not None


async def test_the_line_client_waits_for_its_nick_and_gives_up_where_waiting_does_not_help() -> None:
    module, irc = example("line_protocol"), IRCServer("433", "433")
    async with mortal_server(irc, server_context(server_cert())) as server:
        config = module.irc_config("127.0.0.1", server.port, "ada", "#tea", **QUICK)
        async with NetworkClient(config) as client:
            assert client.stats.retries == 2
        irc.refusals.append("465")
        with pytest.raises(ConnectError, match=":irc 465") as caught:
            await NetworkClient(config).connect()
        assert caught.value.details["attempt"] == 1


@pytest.mark.slow
def test_the_line_client_as_a_program() -> None:
    asyncio.run(_restarted_under_the_program())


async def _restarted_under_the_program() -> None:
    async with mortal_server(IRCServer(), server_context(server_cert())) as server:
        arguments = ("127.0.0.1", str(server.port), "ada", "#tea", str(ca_file()))
        command = [sys.executable, "-W", "error", EXAMPLES / "line_protocol.py", *arguments]
        # A shell that runs the tests in the background has SIGINT ignored, and that is inherited.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, preexec_fn=heed, **pipes) as program:
            try:
                lines = await _follow(program, server)
                program.send_signal(signal.SIGINT)
                _, errors = await asyncio.to_thread(program.communicate)
            finally:
                program.kill()
        assert (program.returncode, errors) == (0, "")
    hello = ":bob!b@h PRIVMSG #tea :hello"
    assert lines[:3] == ["* connecting", "* connected", hello]
    assert "* lost" in lines
    assert lines[-2:] == ["* connected", hello]


async def _follow(program: subprocess.Popen[str], server: Mortal) -> list[str]:
    assert program.stdout is not None
    lines: list[str] = []
    while sum(line.endswith(":hello") for line in lines) < 2:
        line = await asyncio.to_thread(program.stdout.readline)
        assert line, lines
        lines.append(line.rstrip())
        if len(lines) == 3:
            await server.kill()
            await server.start()
    return lines


# ---- starttls.py ----


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of aiosmtpd, an SMTP server with STARTTLS, in a process of its own."""
    output = tmp_path_factory.mktemp("mail") / "output"
    with reserved_ports(1) as [port]:
        command: list[str | Path] = [sys.executable, "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink"]
        command += ["-l", f"127.0.0.1:{port}", "--tlscert", server_cert(), "--tlskey", server_cert()]
        with server_process(command, output):
            wait_until(lambda: listens(port), output)
            yield port


@pytest.mark.slow
def test_starttls_as_a_program(mail_server: int) -> None:
    plain, tls, encrypted = output("starttls.py", "127.0.0.1", str(mail_server), str(ca_file()))
    assert plain.startswith("in plain:") and "STARTTLS" in plain
    assert "TLSv1.3" in tls
    assert encrypted.startswith("encrypted:") and "STARTTLS" not in encrypted and "AUTH" in encrypted


async def test_starttls_with_a_real_server_and_only_with_one_that_is_trusted(mail_server: int) -> None:
    module = example("starttls")
    config = NetworkConfig("127.0.0.1", mail_server)
    async with NetworkClient(config) as client:
        assert "STARTTLS" in await module.start_tls(client, TLSConfig(ca_file=ca_file()))
        assert client.tls is not None
        with pytest.raises(module.SMTPError, match="250 expected: 500"):
            await module.ask(client, "NONSENSE", "250")
        assert await module.ask(client, "QUIT", "221")
    async with NetworkClient(config) as client:
        with pytest.raises(TLSError, match="certificate"):
            await module.start_tls(client, TLSConfig())
        assert not client.is_connected


@pytest.mark.parametrize(
    ("offer", "answer", "error"),
    [
        (b"250-x\r\n250 STARTTLS\r\n", b"220 ready\r\n250 injected\r\n", "14 plain bytes before TLS began"),
        (b"250-x\r\n250 STARTTLS\r\n", b"454 not now\r\n", "220 expected: 454 not now"),
        (b"250-x\r\n250 PIPELINING\r\n", None, "no STARTTLS, but: PIPELINING"),
    ],
    ids=["injected", "refused", "stripped"],
)
async def test_starttls_is_not_fooled(offer: bytes, answer: bytes | None, error: str) -> None:
    module = example("starttls")

    async def script(peer: Peer) -> None:
        await peer.send(b"220-mail\r\n220 ESMTP\r\n")
        await peer.expect(b"EHLO localhost\r\n")
        await peer.send(offer)
        if answer is not None:
            await peer.expect(b"STARTTLS\r\n")
            await peer.send(answer)
        # Neither a byte of TLS nor anything else.
        assert await peer.receive_all() == b""

    async with scripted_peer(script) as server, NetworkClient(server.config) as client:
        with pytest.raises((TLSError, module.SMTPError), match=error):
            await module.start_tls(client, TLSConfig())
        assert client.tls is None
