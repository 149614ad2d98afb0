"""The commands that need no server of others: doctor, demo, bench; help, exit codes, Ctrl-C."""

from __future__ import annotations

import functools
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import COMMAND, SECONDS, run, run_inside

from pepperpy.network import errors as errors_module
from pepperpy.network.command.main import EXIT_CODES, code_of
from pepperpy.network.command.terminal import escaped

whole_program = pytest.mark.timeout(SECONDS + 10)


@pytest.mark.slow
@whole_program
def test_doctor_shows_what_there_is_and_finds_no_fault() -> None:
    out, complaints = run("doctor")
    text = out.decode()
    assert not complaints
    for words in ("Python ", "OpenSSL ", "aiohttp ", "httptools ", "_core/stream_protocol", "namespace ", "uvloop "):
        assert words in text
    assert re.search(r"loopback +\d+ us", text)
    assert text.endswith("It works.\n")


@pytest.mark.slow
@whole_program
def test_doctor_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    hide = "import sys\nfor name in ('uvloop', 'aiofastnet', 'msgspec'): sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    out, _ = run("doctor", env={"PYTHONPATH": str(tmp_path)})
    text = out.decode()
    assert "uvloop           no " in text
    for package in ("uvloop", "aiofastnet", "msgspec"):
        assert f"{package}: slow: " in text and f"pip install '{package}'" in text


@pytest.mark.slow
@whole_program
def test_doctor_ends_with_1_where_the_name_belongs_to_others(tmp_path: Path) -> None:
    code = (
        "import pepperpy, sys\n"
        f"pepperpy.__file__ = {str(tmp_path / 'pepperpy' / '__init__.py')!r}\n"
        "from pepperpy.network.command.main import main; sys.exit(main(['doctor']))"
    )
    (tmp_path / "pepperpy").mkdir()
    (tmp_path / "pepperpy" / "__init__.py").touch()
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1 and not done.stderr
    assert "pepperpy belongs to no installed distribution" in done.stdout


@pytest.mark.slow
@whole_program
def test_the_demo_loses_nothing_and_connects_again() -> None:
    lines = run("demo")[0].decode().splitlines()
    assert [line.split()[0] for line in lines] == [
        *("connected", "received", "as", "asked", "stopping", "noticed", "connected", "lines", "counted")
    ]
    assert lines[3].startswith("asked       10000 of 10000 replies")


@pytest.mark.slow
@whole_program
def test_the_bench_prints_three_ratios() -> None:
    out, complaints = run("bench", "--seconds", "0.05")
    assert len(re.findall(r"\d+\.\dx   (?:asyncio streams|aiohttp)$", out.decode(), re.MULTILINE)) == 3
    assert not complaints
    run_inside("bench", "--seconds", "0", code=2)


@pytest.mark.slow
@whole_program
def test_each_help_has_the_exit_codes_and_no_command_is_an_error() -> None:
    for command in ((), ("doctor",), ("demo",), ("bench",), ("get",), ("tcp",)):
        assert EXIT_CODES in run_inside(*command, "--help")[0].decode()
    run_inside(code=2)
    run_inside("fetch", code=2)
    assert run("--version")[0].startswith(b"pepperpy-network ")


def test_every_error_of_the_package_has_an_exit_code_that_the_help_explains() -> None:
    for name in errors_module.__all__:
        code = code_of(getattr(errors_module, name)("x"))
        assert code is not None and re.search(rf"^  {code} +\w", EXIT_CODES, re.MULTILINE), name
    assert code_of(ZeroDivisionError()) is None


def test_the_page_explains_the_same_exit_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    explained = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert explained == re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)


@pytest.mark.slow
@whole_program
def test_ctrl_c_is_quiet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # A shell that runs the tests in the background has SIGINT ignored, and that is inherited.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        command = [*COMMAND, "tcp", f"127.0.0.1:{server.getsockname()[1]}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, preexec_fn=heed, **pipes) as process:  # type: ignore[call-overload]
            with server.accept()[0] as connection:
                connection.sendall(b"x")
                # It runs in its loop now.
                assert process.stdout.read(1) == b"x"
                process.send_signal(signal.SIGINT)
                assert process.wait(SECONDS) == 130
                assert process.stderr.read() == b""


@pytest.mark.slow
@whole_program
def test_a_reader_that_leaves_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    # Before it writes, however long this process is held up.
    os.close(reading)
    try:
        process = subprocess.run(
            [*COMMAND, "doctor"], stdout=writing, stderr=subprocess.PIPE, timeout=SECONDS, check=False
        )
    finally:
        os.close(writing)
    assert (process.returncode, process.stderr) == (141, b"")


def test_escaped_text_moves_no_cursor() -> None:
    assert escaped("line\r\nnext\tä€\n") == "line\nnext\tä€\n"
    assert escaped("\x1b[2J\r\x07\x9b1m\u202e\ud800") == "\\x1b[2J\\r\\x07\\x9b1m\\u202e\\ud800"
