"""`NetworkClient.tcp_info()`: what Linux knows of a connection."""

from __future__ import annotations

import dataclasses
import socket
import struct
import subprocess
import sys

import pytest
from support.cancelling import arrived, until
from support.servers import client_of, echo_server, peer_and_client
from support.tls_peer import TRANSPORTS, tls_peer_and_client, use_transport

from pepperpy.network import NetworkClient, NetworkConfig
from pepperpy.network.tcp.tcp_info import TCPInfo, tcp_info_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


async def test_what_the_kernel_tells_is_about_this_connection_in_seconds_and_bytes() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"x" * 100_000)
        assert len(await peer.receive(100_000)) == 100_000
        await peer.send(b"y" * 1000)
        await arrived(client, 1000)
        info = client.tcp_info()
        assert info is not None
        assert info.state == "ESTABLISHED"
        # Of a loopback, on a machine that is never so busy.
        assert 0 < info.rtt < 1 and 0 <= info.rttvar < 1 and 0.1 <= info.rto < 10
        assert info.min_rtt is None or 0 < info.min_rtt <= 1
        assert 500 < info.mss <= 65536 and info.pmtu >= info.mss
        assert info.cwnd % info.mss == 0 and info.cwnd >= info.mss
        # The SYN counts as a byte.
        assert info.bytes_acked - 1 <= 100_000 and info.bytes_received == 1000
        # Where the kernel has no time to acknowledge, it sends again even here.
        assert 0 <= info.retransmits <= info.total_retransmits
        assert 0 <= info.since_data_received < 10 and 0 <= info.since_data_sent < 10
        with pytest.raises(dataclasses.FrozenInstanceError):
            info.rtt = 1.0  # type: ignore[misc]


def test_each_fact_is_that_of_its_field() -> None:
    # Offsets in `struct tcp_info` of linux/tcp.h.
    data = bytearray(168)
    struct.pack_into("=BxB", data, 0, 8, 2)
    words = {8: 201_000, 16: 1448, 24: 9, 32: 3, 44: 70, 52: 80, 60: 1500, 68: 1000, 72: 500, 80: 10, 100: 4}
    for offset, value in (words | {144: 5000, 148: 900}).items():
        struct.pack_into("=I", data, offset, value)
    for offset, value in {120: 1 << 40, 128: 1 << 41, 160: 1 << 42}.items():
        struct.pack_into("=Q", data, offset, value)

    class Socket:
        family = socket.AF_INET

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
            return bytes(data)[:size]

    assert tcp_info_of(Socket()) == TCPInfo(
        state="CLOSE_WAIT",
        rtt=0.001,
        rttvar=0.0005,
        min_rtt=0.0009,
        rto=0.201,
        mss=1448,
        pmtu=1500,
        cwnd=14480,
        unacked=9,
        lost=3,
        retransmits=2,
        total_retransmits=4,
        bytes_acked=1 << 40,
        bytes_received=1 << 41,
        not_sent=5000,
        delivery_rate=1 << 42,
        since_data_received=0.08,
        since_data_sent=0.07,
    )


def without_ages(info: TCPInfo | None) -> TCPInfo:
    assert info is not None
    return dataclasses.replace(info, since_data_received=0.0, since_data_sent=0.0)


async def test_it_says_what_the_program_ss_says() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"x" * 10_000)
        await peer.receive(10_000)
        own = client.local_address[1]
        info = None
        # As long as an acknowledgment is on its way, the two look at different moments.
        while info is None or without_ages(client.tcp_info()) != info:
            info = without_ages(client.tcp_info())
            try:
                shown = subprocess.run(
                    ["ss", "-tinH", f"sport = :{own}"], capture_output=True, text=True, check=True
                ).stdout
            except FileNotFoundError:
                pytest.skip("ss (iproute2) is not installed")
        words = dict(word.split(":", 1) for word in shown.split() if ":" in word)
        assert (int(words["mss"]), int(words["pmtu"])) == (info.mss, info.pmtu)
        assert int(words["cwnd"]) * info.mss == info.cwnd
        assert int(words["bytes_acked"]) == info.bytes_acked
        rtt, rttvar = (float(part) / 1e3 for part in words["rtt"].split("/"))
        assert (rtt, rttvar) == (pytest.approx(info.rtt, abs=1e-5), pytest.approx(info.rttvar, abs=1e-5))
        assert float(words["rto"]) / 1e3 == pytest.approx(info.rto, abs=0.01)


async def test_the_end_of_the_peer_is_seen() -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        await until(lambda: client.at_eof, "the peer's end has come")
        info = client.tcp_info()
        assert info is not None and info.state == "CLOSE_WAIT"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_works_below_tls(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_transport(monkeypatch, transport)
    async with tls_peer_and_client(server_hostname="localhost") as (_, client):
        info = client.tcp_info()
        assert info is not None and info.state == "ESTABLISHED"


async def test_without_a_connection_and_on_a_unix_socket_there_is_none(redis_path: str) -> None:
    async with NetworkClient(NetworkConfig(unix_path=redis_path)) as client:
        assert client.tcp_info() is None
    async with echo_server() as port:
        client = client_of(port)
        assert client.tcp_info() is None
        async with client:
            assert client.tcp_info() is not None
        assert client.tcp_info() is None


async def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer_and_client() as (_, client):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert client.tcp_info() is None
