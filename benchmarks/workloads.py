"""How much work each workload does, for all peers alike, and which server stands at the other end."""

import os
from dataclasses import dataclass, replace

LINE_BYTES = 64
LINE = b"x" * 63 + b"\n"
BULK_PIECE = 4 << 20
SEND_PIECE = 256 << 10
ECHO_CONNECTIONS = 64
HTTP_BODY = "x" * 100
HTTP_IN_FLIGHT = 32


@dataclass(frozen=True)
class Workload:
    server: str
    operations: int
    unit: str


WORKLOADS = {
    "receive_line": Workload("flood", 1_500_000, "lines of 64 bytes, one await each"),
    "receive_lines": Workload("flood", 20_000_000, "lines of 64 bytes, a batch per await"),
    "receive_record": Workload("flood", 1_500_000, "records of 64 bytes, one await each"),
    "receive_bulk": Workload("flood", 1024, "pieces of 4 MiB"),
    "receive_stream": Workload("flood", 4 << 30, "bytes as they come"),
    "send_small": Workload("sink", 1_000_000, "messages of 64 bytes"),
    "send_bulk": Workload("sink", 16384, "pieces of 256 KiB"),
    "echo_1": Workload("echo", 30_000, "round trips of 64 bytes, 1 connection"),
    "echo_64": Workload("echo", 200_000, "round trips of 64 bytes, 64 connections"),
    "idle": Workload("idle", 2000, "idle connections"),
}
HTTP_WORKLOADS = {
    "http_get_1": Workload("nginx", 6_000, "GET of 100 bytes, 1 in flight"),
    "http_get_32": Workload("nginx", 16_000, "GET of 100 bytes, 32 in flight"),
}
TCP_WORKLOADS = tuple(WORKLOADS)
WORKLOADS.update(HTTP_WORKLOADS)

# A part of the work, for those who cannot wait (ratios.py).
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
for _name, _workload in WORKLOADS.items():
    WORKLOADS[_name] = replace(_workload, operations=int(_workload.operations * SCALE))
