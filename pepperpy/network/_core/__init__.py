"""The compiled core: one connection, its two directions, where messages end. Sources: `ext/pepperpy/network/_core/`.

    stream_protocol.pyx       asyncio's callbacks: the only file that a loop calls; one object for each connection
      endpoint.pyx            the connection's state, who may use it, its one timer
      input_stream.pyx        where a read goes, which task waits for bytes; its .pxd: what readers use
        receive_buffer.pyx    where unread bytes lie, and who owns them; where a line ends
        separators.pyx        where the first of several separators ends
        destination.pyx       memory of its own for one large receive
        receiver.pyx          takes raw bytes
        frame_reader.pyx      takes one message
          framer.pyx          where a message ends, without a connection: the base of all framers
          builtin_framers.pyx    by a length, by a separator
          stuffing.pyx        by one byte that does not occur in it (SLIP, COBS)
          python_framers.pyx  by the rule of a user's codec in Python
        http_reader.pyx       takes one HTTP/1.x response: its body, of whatever framing
          http_head.pyx       its head and trailers: limits, what is refused
          http_exchange.pyx   the way of a request and its answer over a pooled connection, where nothing goes wrong
      event_stream.pyx        the server-sent events of a body, whoever carries it
      lending.pyx             the way of a pooled connection to its user and back, where nothing goes wrong
      sender.pyx              the sending side: accepts bytes, gathers them, holds senders back, flushes, closes
        send_queue.pyx        bytes that wait to leave, and the system call that sends them
          platform.h          that system call, two that look for input, and a clock
      waiter.pyx              what a task that waits awaits
        handover.pyx          what a task awaits until it is given something
        running.h             which task and context the interpreter runs now
    reader_core.pyx           the receiving side of asyncio's streams: the same memory, asyncio's rules
    writer_core.pyx           their sending side: gathers small writes for the transport
    limit.pyx                 a block with a time limit
    record.pyx                copies an object that has slots and nothing else
      record.h                how that is done
    status.pxd                what the functions of these modules return
    directions.py             what callers use of a direction, and stand-ins have too

A `.pxd` lists the fields of its class with a comment each. The core takes a configuration as it is given, and does not
import its module.
"""

import importlib.util
import sys

if importlib.util.find_spec(f"{__name__}.stream_protocol") is None:
    from pathlib import Path

    # Most often the current folder is the checkout, and comes before what pip has installed.
    _missing = (
        f"{Path(__file__).parents[1]} has no compiled core for {sys.implementation.cache_tag}: if it is a checkout, run"
        " Python in another folder to import what pip has installed, or compile it with `pip install -e .`"
    )
    if sys.argv[:1] == ["-m"] and "pepperpy.network" in sys.orig_argv:
        # `python -m pepperpy.network doctor`: Python imports the package before its __main__, which could say so.
        sys.exit(f"pepperpy-network: {_missing}")
    raise ImportError(_missing, name=__name__)
