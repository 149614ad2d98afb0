"""The command line, run as a program, or inside of the test without a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from typing import Any
from unittest import mock

from pepperpy.network.command.main import main

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


def run_inside(*arguments: object, stdin: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    """As `run`, in this process: for what the arguments do, once a test has seen the program do its like."""
    out, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        redirected = (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            mock.patch("sys.stdin", file),
        )
        with contextlib.ExitStack() as stack:
            for each in redirected:
                stack.enter_context(each)
            try:
                found = main([*map(str, arguments)])
            except SystemExit as end:  # argparse
                found = end.code  # type: ignore[assignment]
    out.flush()
    written = out.buffer.getvalue()  # type: ignore[attr-defined]
    assert (found or 0) == code, (found, written, errors.getvalue())
    return written, errors.getvalue()


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
