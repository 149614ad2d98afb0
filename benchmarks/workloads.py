"""What is measured: one `Workload` a figure, the same for all peers."""

from __future__ import annotations

from dataclasses import dataclass, replace

LINE = b"x" * 63 + b"\n"
LAST_MESSAGE = b"how many?\n"  # ends what the sink counts; in no other message
HEADER_BYTES = 4  # of a record, big-endian: how many bytes follow
BULK_PIECE = 4 << 20
LARGE_RECORD = 1 << 20
EVENT = b"x" * 1017  # with "data: " and the empty line 1 KiB
SEND_PIECE = 256 << 10


@dataclass(frozen=True)
class Workload:
    """One thing to do for a while.

    Attributes:
        name: What it is selected by.
        kind: The function of a peer's module that does it.
        server: What stands at the other end: a kind of server.py, or nginx. `events` speaks HTTP too.
        words: What one operation is.
        size: Bytes of a message or body.
        connections: How many at once; over HTTP, requests in flight.
        tls: Whether the bytes are encrypted.
        seconds: How long the clock runs.
        rounds: How often each peer has its turn.
        unit: What a rate is given in: operations or bytes per second, or bytes of memory per operation.
        path: What is asked for, over HTTP; http_load.py and nginx.conf.in have what is there.
        hosts: How many hosts are asked in turn, over HTTP.
    """

    name: str
    kind: str
    server: str
    words: str
    size: int = 64
    connections: int = 1
    tls: bool = False
    seconds: float = 0.4
    rounds: int = 3
    unit: str = "operations"
    path: str = "/"
    hosts: int = 1

    @property
    def family(self) -> str:
        """What it is reported and plotted with."""
        return "HTTP" if self.server in ("nginx", "events") else "TLS" if self.tls else "TCP"


def _tcp() -> list[Workload]:
    echoes = [
        Workload(
            f"echo_{connections}_{words}", "echo", "echo",
            f"round trip of {size:,} bytes, {connections:,} connection{'s' * (connections > 1)}", size, connections,
        )
        for connections in (1, 64, 1000)
        for size, words in ((64, "64B"), (4096, "4K"), (65536, "64K"))
    ]  # fmt: skip
    return [
        Workload("receive_line", "receive_line", "lines", "line of 64 bytes in, one await each"),
        Workload("receive_lines", "receive_lines", "lines", "line of 64 bytes in, a batch per await"),
        Workload("receive_record", "receive_record", "records", "length-prefixed record of 64 bytes in, one at a time"),
        Workload("receive_records", "receive_records", "records", "length-prefixed record of 64 bytes in, by batch"),
        Workload(
            "receive_bulk", "receive_bulk", "lines", "byte in, by pieces of exactly 4 MiB", BULK_PIECE, unit="bytes"
        ),
        Workload(
            "receive_large_record",
            "receive_large_record",
            "large_records",
            "byte in, by length-prefixed records of 1 MiB",
            LARGE_RECORD,
            unit="bytes",
        ),
        Workload("receive_stream", "receive_stream", "lines", "byte in, as they come", unit="bytes"),
        Workload("send_small", "send", "sink", "message of 64 bytes out"),
        Workload("send_bulk", "send", "sink", "message of 256 KiB out", SEND_PIECE),
        Workload("connect_close", "connect_close", "echo", "connection made, used for one round trip, and closed"),
        *echoes,
        Workload("idle", "idle", "idle", "idle connection, of 10,000", connections=10_000, rounds=1, unit="memory"),
    ]


def _over_tls(plain: Workload) -> Workload:
    changes = {"connections": 1000, "words": "idle connection, of 1,000"} if plain.kind == "idle" else {}
    # A thousand handshakes take some seconds.
    rounds = 2 if plain.kind == "echo" and plain.connections == 1000 else plain.rounds
    return replace(plain, name=f"tls_{plain.name}", tls=True, rounds=rounds, **changes)


TCP_WORKLOADS = {workload.name: workload for workload in _tcp()}
# A thousand connections only with the smallest and the largest message, to save time.
TLS_WORKLOADS = {workload.name: workload for workload in map(_over_tls, _tcp()) if workload.name != "tls_echo_1000_4K"}
HTTP_WORKLOADS = {
    workload.name: workload
    for workload in [
        Workload("http_get_1", "get", "nginx", "GET of 100 bytes, 1 in flight", 100),
        Workload("http_get_32", "get", "nginx", "GET of 100 bytes, 32 in flight", 100, 32),
        Workload("http_get_256", "get", "nginx", "GET of 100 bytes, 256 in flight", 100, 256),
        Workload(
            "http_json", "post_json", "nginx", "POST of 2 KB of JSON, answered with 3 KB, 32 in flight", 2000, 32,
            path="/json",
        ),
        Workload(
            "http_download", "get_bytes", "nginx", "byte in, by GET of 10 MB", 10_000_000, path="/file", unit="bytes"
        ),
        Workload(
            "http_upload", "post_bytes", "nginx", "byte out, by POST of 10 MB", 10_000_000, path="/upload", unit="bytes"
        ),
        Workload(
            "http_gzip", "get_bytes", "nginx", "GET of 100 KB that come gzipped, 32 in flight", 100_000, 32,
            path="/packed",
        ),
        Workload("http_hosts", "get", "nginx", "GET of 100 bytes of 64 hosts in turn, 32 in flight", 100, 32, hosts=64),
        Workload("http_events", "events", "events", "server-sent event of 1 KiB in, of 32 streams", 1024, 32),
        Workload("https_get_32", "get", "nginx", "GET of 100 bytes, 32 in flight", 100, 32, tls=True),
    ]
}  # fmt: skip
WORKLOADS = TCP_WORKLOADS | TLS_WORKLOADS | HTTP_WORKLOADS
# `make bench-quick`
QUICK = ("receive_line", "send_small", "echo_64_64B", "http_get_32")
