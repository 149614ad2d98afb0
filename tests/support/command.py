"""The command line, run as a program against real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

COMMAND = [sys.executable, "-W", "error", "-m", "pepperpy.network"]
SECONDS = 120  # for a whole program on a busy machine


def run(*arguments: object, stdin: bytes = b"", code: int = 0, **options: Any) -> tuple[bytes, str]:
    """What it writes to standard output and standard error; it ends with this exit code, and without a traceback."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS, **options)
    errors = done.stderr.decode()
    assert "Traceback" not in errors, errors
    assert done.returncode == code, (done.returncode, done.stdout, errors)
    return done.stdout, errors


def on_terminal(*arguments: object, code: int = 0) -> str:
    """What it writes to a terminal."""
    import pty  # Windows has none

    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as terminal:
        command = [*COMMAND, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
        os.close(slave)
        pieces = []
        try:
            while piece := terminal.read(65536):
                pieces.append(piece)
        except OSError:
            # Linux says so where the last writer has closed the terminal.
            pass
        assert process.wait(SECONDS) == code, pieces
    return b"".join(pieces).decode().replace("\r\n", "\n")
