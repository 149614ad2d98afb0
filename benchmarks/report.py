"""The results of a run: a table in Markdown, everything in JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import Figures, Peer
from workloads import WORKLOADS, Workload

OURS = ("tcp.network_client", "http.http_client")
# Other ways into this package, which are no peers of it.
ALSO_OURS = ("tcp.network_client_exactly", "tcp.streams_on_core", "http.httpx_on_ours")
# What most use now, and what is no client for others to use: the limit, and a parser written for the workload.
USUAL = ("tcp.streams", "http.aiohttp_session")
BY_HAND = ("tcp.c_client", "http.c_http", "tcp.protocol", "tcp.aiofastnet_protocol")
# What is measured, and what measures it.
PACKAGES = (
    "pepperpy-network", "aiohttp", "uvloop", "aiofastnet", "anyio", "trio", "httpx", "niquests", "aiosonic",
    "pyreqwest", "wreq", "curl_cffi", "pycurl", "msgspec", "orjson",
)  # fmt: skip
RESULTS: dict[str, dict[Peer, Figures]] = {}


def write(folder: Path, command: str) -> None:
    """results.md and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text("\n".join(markdown(command)) + "\n")
    (folder / "results.json").write_text(json.dumps(everything(command), indent=1) + "\n")


def machine() -> str:
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()} {platform.machine()}"


def versions() -> dict[str, str]:
    found = {"CPython": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def everything(command: str) -> dict[str, Any]:
    return {
        "command": command,
        "machine": machine(),
        "versions": versions(),
        "results": [
            {"workload": asdict(WORKLOADS[name]), "peer": peer.name, "loop": peer.loop, "rounds": figures.reports}
            for name, of_peers in RESULTS.items()
            for peer, figures in of_peers.items()
        ],
    }


def markdown(command: str) -> Iterator[str]:
    yield "# All figures"
    yield ""
    yield f"`{command}` on {machine()}; {', '.join(f'{name} {version}' for name, version in versions().items())}."
    yield "Medians of the rounds; `?` marks a rate whose rounds spread by more than a quarter."
    yield ""
    yield from summary()
    for name, of_peers in RESULTS.items():
        yield ""
        yield from table(WORKLOADS[name], of_peers)


def summary() -> Iterator[str]:
    """A row a workload: this package, what most use now, and the best of the other clients."""
    yield "## Summary"
    yield ""
    yield "Rates; streams are asyncio's, over HTTP aiohttp stands in their place. The last column is the best of the"
    yield "other clients on any loop, without the C client and the protocols written by hand. What runs on this package"
    yield "is in bold in the tables below."
    yield ""
    yield "| workload | ours, asyncio | streams | ours, uvloop | streams | best of the others |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name, of_peers in RESULTS.items():
        workload = WORKLOADS[name]
        if workload.unit == "memory":
            continue
        rates = {(peer.name, peer.loop): rate(workload, figures) for peer, figures in of_peers.items()}
        ours, usual = (rates_of(rates, names) for names in (OURS, USUAL))
        left_out = (*OURS, *ALSO_OURS, *USUAL, *BY_HAND)
        others = [(f.rate, peer) for peer, f in of_peers.items() if peer.name not in left_out]
        best = max(others, key=lambda other: other[0], default=None)
        last = "" if best is None else f"{rate(workload, of_peers[best[1]])}, {best[1]}"
        yield f"| {name} | {ours[0]} | {usual[0]} | {ours[1]} | {usual[1]} | {last} |"


def rates_of(rates: dict[tuple[str, str], str], names: tuple[str, ...]) -> list[str]:
    """On asyncio and on uvloop, of the one peer among `names` that has one."""
    return [next((rates[name, loop] for name in names if (name, loop) in rates), "") for loop in ("asyncio", "uvloop")]


def table(workload: Workload, of_peers: dict[Peer, Figures]) -> Iterator[str]:
    yield f"## {workload.name}: {'over TLS, ' if workload.tls else ''}{workload.words}"
    yield ""
    if workload.unit == "memory":
        yield "| peer | loop | memory per connection | peak memory |"
        yield "|---|---|--:|--:|"
        for peer, figures in sorted(of_peers.items(), key=lambda item: item[1].bytes_per_operation or 0):
            yield f"| {shown(peer)} | {peer.loop} | {figures.bytes_per_operation:,.0f} B | {megabytes(figures)} |"
        return
    yield "| peer | loop | rate | spread | CPU | p50 | p99 | peak memory |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for peer, figures in sorted(of_peers.items(), key=lambda item: -item[1].rate):
        cells = (
            shown(peer), peer.loop, rate(workload, figures), f"{figures.spread:.0%}",
            cpu(workload, figures), latency(figures.p50), latency(figures.p99), megabytes(figures),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def shown(peer: Peer) -> str:
    name = peer.name.partition(".")[2]
    return f"**{name}**" if peer.name in (*OURS, *ALSO_OURS) else name


def rate(workload: Workload, figures: Figures) -> str:
    unsure = " ?" if figures.is_unsure else ""
    if workload.unit == "bytes":
        return f"{figures.rate / 1e6:,.0f} MB/s{unsure}"
    return f"{figures.rate:,.0f}/s{unsure}"


def cpu(workload: Workload, figures: Figures) -> str:
    if workload.unit == "bytes":
        return f"{figures.cpu_seconds * 1e9:.2f} ns/B"
    return f"{figures.cpu_seconds * 1e6:.3g} us"


def latency(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:,.0f} us"


def megabytes(figures: Figures) -> str:
    return "" if figures.peak_memory_bytes is None else f"{figures.peak_memory_bytes / 1e6:,.0f} MB"


def command_line() -> str:
    """How this run was asked for."""
    return os.environ.get("BENCH_COMMAND") or " ".join(["python", *sys.argv])
