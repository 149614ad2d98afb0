"""Runs every coroutine test on each event loop (support/loops.py), and fails the test that leaves anything behind.

A test fails, besides by its own assertions, if the loop's exception handler was called, a task is still alive, a file
descriptor is still open, or anything was reported as unraisable (pytest turns that into a warning, and warnings are
errors here).

How much the tests do, in seconds, every day, at night and under the sanitizers, is written in support/tiers.py; how one
that does not end is ended, in support/watchdog.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from support.closed_servers import end_half_made, handlers_have_ended, is_of_a_server
from support.loops import LOOPS, UVLOOP
from support.processes import programs
from support.tiers import FAST, FAST_EXAMPLES, NIGHTLY, NIGHTLY_LIMIT, SHORT
from support.watchdog import Watchdog, abandon, limit_of, open_sockets

if TYPE_CHECKING:
    from support.httpx_libraries import Library
    from support.names import HangingNames
    from support.nginx import Nginx
    from support.proxies import Tinyproxy

# Every day the same games, so that nobody meets a failure that is not his; at night new ones. A failure says how it can
# be played again. Without a deadline for each game: the machine may be busy.
settings.register_profile("everyday", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("nightly", max_examples=3000, deadline=None, print_blob=True)
settings.register_profile("fast", settings.get_profile("everyday"), max_examples=FAST_EXAMPLES)
settings.load_profile("nightly" if NIGHTLY else "fast" if FAST or SHORT else "everyday")


watchdog = pytest.StashKey[Watchdog]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("grace", "seconds beyond its time limit after which a test ends the run", default="20")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[watchdog] = Watchdog(float(config.getini("grace")))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.config.stash[watchdog].begin(limit_of(item))
    programs.allowed = item.get_closest_marker("needs_server") is not None
    try:
        return (yield)
    finally:
        item.config.stash[watchdog].end()


def pytest_enter_pdb(config: pytest.Config) -> None:
    config.stash[watchdog].end()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if NIGHTLY and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(NIGHTLY_LIMIT))
    if not NIGHTLY:
        leave_out(config, items, [item for item in items if item.get_closest_marker("nightly")])
    if FAST:
        left_out = ("slow", "needs_server")
        leave_out(config, items, [item for item in items if any(map(item.get_closest_marker, left_out))])
    if FAST or SHORT:
        # One of each function and loop.
        first = {function_and_loop(item): item for item in reversed(items)}
        leave_out(config, items, [item for item in items if item is not first[function_and_loop(item)]])


def function_and_loop(item: pytest.Item) -> tuple[str, str | None]:
    callspec = getattr(item, "callspec", None)
    return item.nodeid.partition("[")[0], callspec.params.get("loop_name") if callspec else None


def leave_out(config: pytest.Config, items: list[pytest.Item], these: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=these)
    left_out = set(these)
    items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_name")
        loops = list(LOOPS)
        if FAST:
            # One or the other, by the length of the test's name: always the same, and about half of the tests on each.
            loops = [loops[len(metafunc.function.__name__) % len(loops)]]
        metafunc.parametrize("loop_name", loops, scope="function")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    loop_factory = LOOPS[pyfuncitem.callspec.params["loop_name"]]
    run(loop_factory, lambda: pyfuncitem.obj(**arguments), limit_of(pyfuncitem), pyfuncitem.config.stash[watchdog])
    return True


def run(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    function: Callable[[], Awaitable[Any]],
    limit: float,
    watchdog: Watchdog,
) -> None:
    """Run one coroutine function on a new loop, `limit` seconds at most, and check that it leaves nothing behind."""
    gc.collect()
    # What is here belongs to pytest, the fixtures and the modules: the test need not look at it again and again.
    gc.freeze()
    descriptors = open_descriptors()
    loop_errors: list[dict[str, Any]] = []
    tasks_left: list[str] = []

    async def checked() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: end_half_made(context) if is_of_a_server(context) else loop_errors.append(context)
        )
        # Debug mode logs what held the loop up. That a machine is busy is no finding, and some tests look at the log.
        loop.slow_callback_duration = 1e9
        sockets = open_sockets()  # the loop's own
        task, over = asyncio.current_task(), False

        def end() -> None:
            nonlocal over
            over = True
            task.cancel()

        # Some: what pytest-timeout raises at that moment may hit the first, and the test's cleaning up may hang, too.
        timers = [loop.call_later(limit + more, end) for more in range(5)] if limit else []
        try:
            await function()
        except asyncio.CancelledError as error:
            if over:
                raise AssertionError(f"the test is not done after {limit:g} s") from error
            raise
        finally:
            for timer in timers:
                timer.cancel()
            # What the test has closed may need a turn or two to be gone.
            for _ in range(3):
                await asyncio.sleep(0)
            if sys.exception() is None:
                await handlers_have_ended()
            tasks_left.extend(repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()})
            if tasks_left or sys.exception() is not None:
                await abandon(sockets)

    failure: BaseException | None = None
    # debug=True on uvloop would only slow it down: its debug mode checks no more than the thread.
    runner = asyncio.Runner(loop_factory=loop_factory, debug=loop_factory is not UVLOOP)
    try:
        runner.run(checked())
    except BaseException as error:
        failure = error
        raise
    finally:
        with watchdog.closing(failure):
            runner.close()
    gc.collect()
    assert not loop_errors, f"the loop's exception handler was called: {loop_errors}"
    assert not tasks_left, f"tasks are still alive: {tasks_left}"
    left = open_descriptors() - descriptors
    for _ in range(100):
        if not left:
            break
        # A thread that looks up names for nobody any more opens one for a moment (lookup.py), and tells of no event.
        time.sleep(0.01)
        left &= open_descriptors()
    assert not left, f"descriptors are still open: {left}"


def open_descriptors() -> set[tuple[str, str]]:
    """This process's descriptors with what they are; empty where the system has no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return set()
    found = set()
    for name in names:
        # The descriptor of the listing itself is gone by now.
        with contextlib.suppress(OSError):
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


@pytest.fixture(autouse=True, scope="session")
def _warm_up() -> None:
    """What a loop opens once per process is no drift of the first test."""
    for loop_factory in LOOPS.values():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.sleep(0))
    # Each test collects garbage twice, which is to look at what the test made, and not at all modules: 60 ms less.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _losses_are_retrieved() -> Iterator[None]:
    """A server of a test, on asyncio's streams, need not ask how its connection ended.

    asyncio retrieves that error in `StreamReaderProtocol.__del__()`. Where the collector ends the future before the
    protocol, the future tells the loop that nobody retrieved it (seen on CPython 3.14: in one of 50 runs of
    requests/test_pipeline_leaks.py, whose clients reset their connections).
    """
    told = asyncio.StreamReaderProtocol.connection_lost

    def connection_lost(self: asyncio.StreamReaderProtocol, exc: Exception | None) -> None:
        told(self, exc)
        if not self._closed.cancelled():  # type: ignore[attr-defined]
            self._closed.exception()  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.StreamReaderProtocol, "connection_lost", connection_lost)
        yield


@pytest.fixture(autouse=True, scope="session")
def _invalid_names() -> Iterator[None]:
    """No test waits for the machine's resolver to say that a name is unknown."""
    from support.names import invalid_names

    with invalid_names():
        yield


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting takes a turn of the loop, as to another machine. For a test whose server runs in the test's own loop,
    and has to have accepted when `connect()` returns."""
    monkeypatch.setattr("pepperpy.network.tcp.connect.LOOKS_AGAIN", False)


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Retries come without waiting."""
    from pepperpy.network.backoff import no_retry_waits

    with no_retry_waits():
        yield


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingNames]:
    """All lookups ask these names."""
    from support.names import HangingNames

    from pepperpy.network import lookup

    names = HangingNames()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    # Threads of the test before wait a little for more to do.
    while lookup._threads._threads:
        time.sleep(0.001)  # they tell of no event
    yield names
    names.go_on.set()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that a download replaces."""
    from support.file_server import OLD

    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


@pytest.fixture(params=["near", "far"])
def distance(request: pytest.FixtureRequest) -> str:
    """Both ways to be connected: within the call, and after a turn of the loop (`far`)."""
    if request.param == "far":
        request.getfixturevalue("far")
    return str(request.param)


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Library:
    """Both of the libraries that have a transport of ours."""
    from support.httpx_libraries import Library

    return Library(request.param)


# ---- Servers from Debian, started when the first test asks for one ----

BACKENDS = ("memcached_port", "nats_port", "postgres_port")
# A test that has one of these fixtures is marked needs_server.
SERVERS = {"_nginx", "proxy", "locked_proxy", "socks", "locked_socks", "redis_port", "redis_path", *BACKENDS}


def pytest_itemcollected(item: pytest.Item) -> None:
    if SERVERS.intersection(getattr(item, "fixturenames", ())):
        item.add_marker("needs_server")


def _backend(name: str) -> Any:
    @pytest.fixture(scope="session", name=name)
    def port() -> Iterator[int]:
        from support import backends

        with getattr(backends, name.replace("_port", "_server"))() as port:
            yield port

    return port


memcached_port, nats_port, postgres_port = map(_backend, BACKENDS)


@pytest.fixture(scope="session")
def _nginx() -> Iterator[Nginx]:
    from support.nginx import nginx

    with nginx() as server:
        yield server


@pytest.fixture
def web(_nginx: Nginx) -> Nginx:
    """nginx, with nothing in its log yet."""
    _nginx.forget_requests()
    return _nginx


@pytest.fixture(scope="session")
def proxy() -> Iterator[Tinyproxy]:
    """tinyproxy, open to all."""
    from support.proxies import tinyproxy

    with tinyproxy() as server:
        yield server


@pytest.fixture(scope="session")
def locked_proxy() -> Iterator[Tinyproxy]:
    """tinyproxy that wants `PROXY_CREDENTIALS`."""
    from support.proxies import PROXY_CREDENTIALS, tinyproxy

    with tinyproxy(PROXY_CREDENTIALS) as server:
        yield server


@pytest.fixture(scope="session")
def socks() -> Iterator[int]:
    """The port of microsocks, open to all."""
    from support.proxies import microsocks

    with microsocks() as port:
        yield port


@pytest.fixture(scope="session")
def locked_socks() -> Iterator[int]:
    """The port of microsocks that wants `PROXY_CREDENTIALS`."""
    from support.proxies import PROXY_CREDENTIALS, microsocks

    with microsocks(PROXY_CREDENTIALS) as port:
        yield port


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """The port of a redis with nothing in it."""
    from support.redis import redis_server

    with redis_server() as port:
        yield port


@pytest.fixture(scope="module")
def redis_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Unix socket of a redis with nothing in it."""
    from support.redis import redis_server

    path = str(tmp_path_factory.mktemp("redis") / "redis.sock")
    with redis_server(port=0, unixsocket=path):
        yield path
