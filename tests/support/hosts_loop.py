"""Runs a script with names of its own: `python hosts_loop.py LOOP '{"api.example.com": 8443}' < SCRIPT`.

The script is the body of a coroutine function. Each name in the table is this machine, at that port whatever the URL
says; an example can then name the host and port that it would have in the world. Prints what the script returns, as
JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import textwrap
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.loops import LOOPS


def main(loop_name: str, ports: dict[str, int], script: str) -> None:
    ask_system = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *options: Any, **more: Any) -> Any:
        if host in ports:
            host, port = "127.0.0.1", ports[host]
        return ask_system(host, port, *options, **more)

    socket.getaddrinfo = getaddrinfo
    names: dict[str, Any] = {}
    exec(f"async def script():\n{textwrap.indent(script, '    ')}", names)
    with asyncio.Runner(loop_factory=LOOPS[loop_name], debug=loop_name != "uvloop") as runner:
        print(json.dumps(runner.run(names["script"]())))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.stdin.read())
