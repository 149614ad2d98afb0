"""`tcp` as a program: standard input and output over one connection, against openssl, redis and scripted servers."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.certificates import ca_file, server_cert, wrong_host_cert
from support.command import COMMAND, SECONDS, on_terminal, run, run_inside
from support.processes import programs, reserved_ports, server_process, wait_until
from support.proxies import listens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 10)]

Start = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def peer() -> Iterator[Start]:
    """Starts a server for one connection in a thread, and returns where it is."""
    threads: list[threading.Thread] = []

    def start(script: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(SECONDS)

        def serve_one() -> None:
            with listener:
                sock, _ = listener.accept()
            with sock:
                sock.settimeout(SECONDS)
                script(sock)

        threads.append(threading.Thread(target=serve_one))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join()


def answer_to(given: bytes, size: int, *arguments: object) -> bytes:
    """The output of `tcp`, whose input ends only when it has `size` bytes: how soon that is must not decide."""
    command = [*COMMAND, "tcp", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(given)
        process.stdin.flush()
        out = process.stdout.read(size)
        rest, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, b""), (out, rest, errors)
    return bytes(out + rest)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_bytes_go_both_ways_unchanged(peer: Start) -> None:
    content = bytes(range(256)) * 20_000

    def echo_at_the_end(sock: socket.socket) -> None:
        sock.sendall(read_all(sock)[::-1])

    assert run("tcp", peer(echo_at_the_end), stdin=content)[0] == content[::-1]


def test_a_terminal_gets_no_control_characters(peer: Start) -> None:
    shown = on_terminal("tcp", peer(lambda sock: sock.sendall(b"\x1b[2Jhello\r\n\xff")))
    assert shown == "\\x1b[2Jhello\n\\xff"


def test_hex_in_and_hex_out(peer: Start) -> None:
    received: list[bytes] = []

    def script(sock: socket.socket) -> None:
        received.append(read_all(sock))
        sock.sendall(bytes(range(18)))

    out = run("tcp", peer(script), "--hex", stdin=b"48 65 6c\n6C6f\n")[0]
    assert received == [b"Hello"]
    assert out == b"00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n10 11\n"
    assert "the input must be hex" in run("tcp", peer(read_all), "--hex", "--wait", 0, stdin=b"xyz\n", code=2)[1]


def test_lines_with_crlf(peer: Start) -> None:
    received: list[bytes] = []
    run("tcp", peer(lambda sock: received.append(read_all(sock))), "--crlf", stdin=b"a\r\nb\n")
    assert received == [b"a\r\nb\r\n"]


def test_a_crlf_that_two_reads_cut_in_two_stays_one(peer: Start) -> None:
    received: list[bytes] = []
    content = b"x" * 65535 + b"\r\nb\r"  # a read takes 65536 bytes
    run("tcp", peer(lambda sock: received.append(read_all(sock))), "--crlf", stdin=content)
    assert received == [content]


def test_it_ends_with_the_peer_although_the_input_is_open(peer: Start) -> None:
    for arguments in ([], ["--hex"], ["--crlf"]):
        command = [*COMMAND, "tcp", peer(lambda sock: sock.sendall(b"")), *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.wait(SECONDS) == 0
            assert process.stderr is not None and process.stderr.read() == b""


def test_an_input_that_is_no_hex_ends_it_at_once(peer: Start) -> None:
    command = [*COMMAND, "tcp", peer(read_all), "--hex", "--wait", "none"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"48\nxyz\n")
        process.stdin.flush()
        assert process.wait(SECONDS) == 2
        assert b"the input must be hex" in process.stderr.read()


def test_a_closed_input_is_an_empty_one_and_a_closed_output_is_an_error(peer: Start) -> None:
    program = " ".join(COMMAND)

    def shell(line: str) -> tuple[int, bytes]:
        done = subprocess.run(["sh", "-c", f"{program} {line}"], capture_output=True, timeout=SECONDS)
        return done.returncode, done.stdout + done.stderr

    def answer(sock: socket.socket) -> None:
        sock.sendall(b"got " + (read_all(sock) or b"nothing"))

    assert shell(f"tcp {peer(answer)} <&-") == (0, b"got nothing")
    for line in ("doctor", "tcp 127.0.0.1:9", "get http://127.0.0.1:9/"):
        assert shell(f"{line} >&-") == (10, b"pepperpy-network: standard output is closed\n")


def test_silence_behind_the_end_of_the_input_ends_it(peer: Start) -> None:
    def silent(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        read_all(sock)
        assert sock.recv(1) == b""

    def keeps_open(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        while sock.recv(100):
            pass
        left.wait(SECONDS)

    left = threading.Event()
    assert answer_to(b"", 5, peer(keeps_open), "--wait", "0.2") == b"hello"
    left.set()
    assert answer_to(b"x", 5, peer(silent), "--wait", "0.2") == b"hello"


def test_what_came_before_a_reset_is_written(peer: Start) -> None:
    def reset(sock: socket.socket) -> None:
        sock.sendall(b"the last words")
        assert sock.recv(1) == b"x"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    out, complaints = run("tcp", peer(reset), "--wait", "none", stdin=b"x", code=7)
    assert out == b"the last words" and "connection lost" in complaints


def test_places_and_what_is_none(redis_path: str, redis_port: int) -> None:
    for place in (
        f"unix:{redis_path}",
        f"unix://{redis_path}",
        f"127.0.0.1:{redis_port}",
        f"tcp://localhost:{redis_port}",
    ):
        assert run_inside("tcp", place, "--crlf", stdin=b"PING\nQUIT\n")[0] == b"+PONG\r\n+OK\r\n"
    for place in ("localhost", "localhost:http", "http://localhost:80", "::1:80"):
        assert "PLACE must be HOST:PORT" in run_inside("tcp", place, code=2)[1]
    run_inside("tcp", "127.0.0.1:0", code=2)
    for wait in ("-1", "nan", "soon"):
        assert "argument --wait" in run_inside("tcp", "127.0.0.1:1", f"--wait={wait}", code=2)[1]
    run_inside("tcp", "unix:/does/not/exist", code=3)
    run_inside("tcp", f"127.0.0.1:{redis_port}", "--certificate", code=2)
    with reserved_ports(1) as (port,):
        assert "cannot connect" in run_inside("tcp", f"127.0.0.1:{port}", code=3)[1]


@pytest.mark.needs_server
def test_tls_with_openssl(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with reserved_ports(1) as [port]:
        command = [
            programs.path("openssl"),
            "s_server",
            "-accept",
            str(port),
            "-cert",
            server_cert(),
            "-key",
            server_cert(),
        ]
        with server_process([*command, "-rev", "-quiet", "-alpn", "one"], output):
            wait_until(lambda: listens(port), output)
            place = f"tls://localhost:{port}"
            assert answer_to(b"hello\n", 6, place, "--ca-file", ca_file(), "--wait", "0.2") == b"olleh\n"
            assert "certificate" in run_inside("tcp", place, code=4)[1]
            asked = ("--tls", "--ca-file", ca_file(), "--certificate", "--alpn", "one")
            text = run_inside("tcp", f"localhost:{port}", *asked)[0].decode()
            certificate = ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") :])
            assert hashlib.sha256(certificate).hexdigest() in text
            assert "TLSv1.3" in text and "name      DNS:localhost" in text and "alpn      one" in text
            assert "until " in text and "issuer " in text
            assert "BEGIN CERTIFICATE" in run_inside("tcp", place, "-k", "--certificate")[0].decode()


def test_the_name_may_be_another_one_than_the_host(peer: Start) -> None:
    def script(sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(wrong_host_cert())
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"hello")
            tls.unwrap()

    arguments = ("--tls", "--ca-file", ca_file(), "--server-name", "elsewhere.example", "--wait", "none")
    assert run("tcp", peer(script), *arguments)[0] == b"hello"


def test_a_reader_that_leaves_ends_it(peer: Start) -> None:
    def endless(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(bytes(65536))
        except OSError:
            pass

    command = [*COMMAND, "tcp", peer(endless)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert len(process.stdout.read(100_000)) == 100_000
        process.stdout.close()
        assert process.wait(SECONDS) == 141
        assert process.stderr.read() == b""
