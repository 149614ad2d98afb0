"""From a host name to its addresses, for TCP and HTTP alike.

Lookups run in threads of their own. In the loop's default executor (as many threads as processors, plus 4) a few names
whose name server does not answer would stop every file and every other lookup of the program. All tasks that wait for a
name share one lookup. Its answer is used again for a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pepperpy.network._core.handover import Handover
from pepperpy.network.checks import check_callable, name_of
from pepperpy.network.daemon_threads import DaemonThreads
from pepperpy.network.printable import printable

AddressInfo = tuple[int, int, int, str, Any]  # as getaddrinfo gives them

# Lookups at the same time in the whole process; further names wait. Chromium's limit (kDefaultMaxSystemTasks).
MAX_THREADS = 64

# Seconds for which an answer is used again. getaddrinfo does not return the TTL. Databases that move to another address
# set 5 seconds (Amazon RDS).
REMEMBERED_S = 5.0

# Seconds after which a new task begins a lookup of its own instead of joining the present one: that one may ask a name
# server that is gone since the machine joined another network. The C library waits as long for one server
# (resolv.conf(5)).
JOINED_S = 5.0

# Names whose addresses are remembered; the oldest answer is dropped first. Arbitrary: some 500 KB.
MAX_NAMES = 1024

# Addresses that a resolver of the user's may give for one name. Arbitrary: glibc passes on as many as one answer holds.
MAX_ADDRESSES = 1000

_threads = DaemonThreads("pepperpy.network lookup", MAX_THREADS)

# A name, the flags of getaddrinfo, and that function itself: the answers of a test's stand-in are not the system's.
_Key = tuple[str, int, Callable[..., Any]]


class _Names(threading.local):
    """Answers and running lookups of one thread, hence of one loop at a time."""

    def __init__(self) -> None:
        self.answers: dict[_Key, tuple[float, list[AddressInfo]]] = {}  # until when, by time.monotonic(); oldest first
        self.lookups: dict[_Key, _Lookup] = {}


_names = _Names()


@runtime_checkable
class ResolverObject(Protocol):
    """What has a resolver as its method."""

    async def resolve(self, host: str, port: int, /) -> Iterable[str]: ...


Resolver: TypeAlias = Callable[[str, int], Awaitable[Iterable[str]]] | ResolverObject
"""`await resolver(host, port)`, or `await resolver.resolve(host, port)`: the IP addresses of a name, the best first."""


def check_resolver(value: object) -> None:
    """Accept a value for the setting `resolver`."""
    if isinstance(value, type):
        raise TypeError(f"resolver must be an object with resolve(), not the class {value.__name__}")
    if value is not None and not isinstance(value, ResolverObject):
        check_callable("resolver", value)


async def look_up(host: str, port: int, flags: int = 0, resolver: Resolver | None = None) -> list[AddressInfo]:
    """The addresses of `host`, with `port` in them, in the system's order of preference (RFC 6724).

    A `resolver` is asked in place of the system, each time, and its order is kept.

    It has no time limit. An IP address is returned at once, without a thread. If the loop overrides `getaddrinfo`, in a
    subclass or on the object, it asks the loop each time. On any other loop it calls `socket.getaddrinfo`, or what
    stands in for that at the time of the call. An address that comes with a port keeps it.

    Raises:
        OSError: `socket.gaierror` for an unknown name or an invalid one; others if the system lacks a resource.

    Cancellation: Other tasks that wait for the name go on. A lookup that nobody waits for is dropped before it begins.
    """
    if (numeric := _numeric(host, port)) is not None:
        return [numeric]
    if resolver is not None:
        return await _ask_resolver(resolver, host, port)
    loop = asyncio.get_running_loop()
    if _has_its_own(loop):
        return await _ask_loop(loop, host, port, flags)
    key = host, flags, socket.getaddrinfo
    until, addresses = _names.answers.get(key, (0.0, []))
    if time.monotonic() >= until:
        lookups = _names.lookups
        if lookups and next(iter(lookups.values())).loop is not loop:
            # Lookups of another loop, which has ended meanwhile, can wake nobody.
            lookups.clear()
        lookup = lookups.get(key)
        if lookup is None or time.monotonic() >= lookup.joined_until:
            lookup = lookups[key] = _Lookup(key, loop)
        addresses = await lookup.answer()
    return [
        (family, kind, proto, name, (address[0], address[1] or port, *address[2:]))
        for family, kind, proto, name, address in addresses
    ]


def forget(host: str, flags: int = 0) -> None:
    """Connecting to the addresses of `host` has failed: ask the system again next time."""
    _names.answers.pop((host, flags, socket.getaddrinfo), None)


def _numeric(host: str, port: int) -> AddressInfo | None:
    # inet_pton takes 0.2 us, the module ipaddress 5 (measured).
    try:
        if ":" not in host:
            socket.inet_pton(socket.AF_INET, host)
            return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
        text, percent, zone = host.partition("%")
        socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None
    return (
        socket.AF_INET6,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
        "",
        (text, port, 0, _scope(zone, host) if percent else 0),
    )


def _scope(zone: str, host: str) -> int:
    # The name of an interface, or its number (RFC 4007, section 11.2).
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        if zone.isdecimal() and zone.isascii() and 0 < (number := int(zone)) < 1 << 32:
            return number
        raise OSError(errno.ENODEV, f"{host!r}: this machine has no interface {zone!r}") from None


def _has_its_own(loop: asyncio.AbstractEventLoop) -> bool:
    if "getaddrinfo" in getattr(loop, "__dict__", ()):
        return True
    maker = next(kind for kind in type(loop).__mro__ if "getaddrinfo" in vars(kind))
    # winloop is uvloop's counterpart on Windows.
    return maker.__module__.partition(".")[0] not in ("asyncio", "uvloop", "winloop")


async def _ask_loop(loop: asyncio.AbstractEventLoop, host: str, port: int, flags: int) -> list[AddressInfo]:
    try:
        addresses: list[Any] = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {error}") from None
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address")
    return addresses


async def _ask_resolver(resolver: Resolver, host: str, port: int) -> list[AddressInfo]:
    """Raises: OSError: The resolver's own, which decides whether it may pass; gaierror for whatever else is wrong."""
    asks = resolver.resolve if isinstance(resolver, ResolverObject) else resolver
    try:
        # No further than that: what somebody's resolver gives may never end.
        found = list(itertools.islice(await asks(host, port), MAX_ADDRESSES + 1))
    except OSError:
        raise
    except Exception as error:
        what = f"resolver {name_of(asks)} failed: {type(error).__name__}: {printable(str(error))}"
        raise socket.gaierror(socket.EAI_FAIL, what) from error
    if len(found) > MAX_ADDRESSES:
        raise socket.gaierror(socket.EAI_FAIL, f"resolver {name_of(asks)} gives more than {MAX_ADDRESSES} addresses")
    addresses = []
    for item in found:
        address = _numeric(item, port) if isinstance(item, str) else None
        if address is None:
            what = f"resolver {name_of(asks)} gives what is no IP address: {printable(repr(item))}"
            raise socket.gaierror(socket.EAI_FAIL, what)
        addresses.append(address)
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address")
    return addresses


class _Lookup:
    """One call of getaddrinfo, and the tasks of this loop that wait for it."""

    def __init__(self, key: _Key, loop: asyncio.AbstractEventLoop) -> None:
        self._key = key
        self.loop = loop
        self.joined_until = time.monotonic() + JOINED_S
        self._waiters: set[Handover] = set()
        self._job = _threads.submit(self._run)

    async def answer(self) -> list[AddressInfo]:
        waiter = Handover(self.loop)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters and self._job.cancel():
                self._leave()
        outcome: list[AddressInfo] | BaseException = waiter.outcome
        if isinstance(outcome, list):
            return outcome
        try:
            raise _for_one(outcome)
        finally:
            del outcome, waiter  # otherwise the error's traceback would refer to the error

    def _run(self) -> None:
        """Runs in a thread."""
        outcome: list[AddressInfo] | BaseException
        try:
            outcome = _ask(*self._key)
        except StopIteration as error:
            # Raised by a stand-in. No future accepts it; a coroutine that raises it ends with a RuntimeError as well.
            outcome = RuntimeError(f"getaddrinfo raised {error!r}")
        except BaseException as error:
            outcome = error.with_traceback(None)
        # RuntimeError: the loop is closed, so nobody waits any more.
        with contextlib.suppress(RuntimeError):
            try:
                self.loop.call_soon_threadsafe(self._done, outcome)
            except MemoryError:
                # Tried once more, as in _done(): nobody else would tell those who wait.
                self.loop.call_soon_threadsafe(self._done, outcome)

    def _done(self, outcome: list[AddressInfo] | BaseException) -> None:
        self._leave()
        try:
            self._tell(outcome)
        except MemoryError:
            self._tell(outcome)
        if isinstance(outcome, list):
            _remember(self._key, outcome)

    def _tell(self, outcome: list[AddressInfo] | BaseException) -> None:
        for waiter in self._waiters:
            if not waiter.is_over:
                waiter.give(outcome)

    def _leave(self) -> None:
        if _names.lookups.get(self._key) is self:
            del _names.lookups[self._key]


def _for_one(error: BaseException) -> BaseException:
    """A copy of the error for each task that waits: an exception collects the tracebacks of all its raises."""
    kind = type(error)
    # Only of known classes: the constructor of a stand-in's own class may want other arguments than its `args`.
    return kind(*error.args) if isinstance(error, OSError) and kind.__module__ in ("builtins", "socket") else error


def _ask(host: str, flags: int, getaddrinfo: Callable[..., Any]) -> list[AddressInfo]:
    try:
        addresses: list[AddressInfo] = list(getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags))
    except socket.gaierror:
        # Without a free descriptor the resolver cannot read its files, and says "unknown name". Opening a socket raises
        # the true error then.
        socket.socket().close()
        raise
    except UnicodeError as error:
        # The idna codec's complaint about a label that is empty or longer than 63 characters.
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {error}") from None
    if not addresses:
        # Only a stand-in returns none: the system raises an error.
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address")
    return addresses


def _remember(key: _Key, addresses: list[AddressInfo]) -> None:
    answers = _names.answers
    now = time.monotonic()
    answers.pop(key, None)
    answers[key] = now + REMEMBERED_S, addresses
    while len(answers) > MAX_NAMES or answers[next(iter(answers))][0] <= now:
        del answers[next(iter(answers))]


def _forget_all() -> None:
    _names.answers.clear()
    _names.lookups.clear()


if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads that run its parent's lookups.
    os.register_at_fork(after_in_child=_forget_all)
