"""The HTTP client: aiohttp does the HTTP work, this layer adds what its users all write by hand.

    client.py  HTTPClient         the documented API
      prepare.py, body.py         from arguments to a Call; everything that can be refused is refused here
      engine.py                   attempts: deadline, rate limit, auth, retries
        call.py                   one logical request and how far it got
        wire.py                   the seam to aiohttp: session, pool, what closes its gaps
        translate.py              aiohttp's exceptions into this package's
      response.py                 what came back, and the one place that reads a body
      stream.py, lines.py, sse.py the body as it comes
      download.py, mapping.py     files; many URLs
    config.py, auth.py, rate_limit.py, codec.py, redact.py, interceptors.py

The public names are those of `pepperpy.network`.
"""
