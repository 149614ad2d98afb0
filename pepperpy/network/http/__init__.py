"""The HTTP client: a transport carries each exchange, this layer adds what users of HTTP all write by hand.

    client.py  HTTPClient         the documented API
      prepare.py                  from arguments to a Call; all that can be refused is refused here
        body.py, upload.py, sources.py    what a request carries, for as many attempts as it takes
      engine.py                   attempts: deadline, rate limit, auth, retries
        call.py                   one logical request: a record
        failures.py               what failed, as an error; whether trying again may help
        ../watchdog.py            one timer for the limits of all attempts
        request.py                what one exchange sends: its headers are decided here
        transport.py              the seam: what the policy and a transport hand each other
        redirects.py, urls.py     what a redirect asks for next; URLs as they were given
        cookies.py                what servers set, and what is sent back
        transports.py             who carries an exchange: one of the next two
          h1/                     the exchange on our own core
          aiohttp_transport/      the exchange by way of aiohttp
          system_text.py          what a system's error says
      response.py                 what came back, and the one place that reads a body
      stream.py, lines.py, sse.py the body as it comes
      download.py, part_file.py   the body as a file
      mapping.py                  many URLs
    content.py, dates.py          what headers say of a body, and of time: rules of HTTP, for any transport
    config.py, limits.py, checks.py, arguments.py, auth.py, rate_limit.py, redact.py, interceptors.py, threads.py

The public names are those of `pepperpy.network`.
"""
