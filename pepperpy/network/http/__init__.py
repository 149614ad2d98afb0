"""The HTTP client: a transport carries each exchange, this layer adds what users of HTTP all write by hand.

    client.py  HTTPClient         the documented API
      methods.py                  get(), post() and the like
      series.py                   events() and map(): many requests in one call
      lifetime.py, stats.py       how a client is opened and closed; what it counts
      aiohttp_types.py            the types of aiohttp in the API, without its import
      options.py, prepare.py      from arguments to a Call; all that can be refused is refused here
        body.py, upload.py, sources.py    what a request carries, for as many attempts as it takes
        conditional.py            a request for a change since an earlier response
      timeouts.py                 the time limits of an attempt
      engine.py                   one attempt after the other: rate limit, token, deadline, redirects
        observing.py              only with on_event: the same, and tells of it
        call.py                   one logical request: a record
        middleware.py             code of the user around a call, or around each exchange
          middleware_request.py, middleware_response.py    what that code sees, changes and makes
          interceptors.py         the older form of it
        retries.py                whether a call is tried again, and when
        rate_limiter.py           who waits for the rate limit
        quota.py                  what servers say of theirs
        failures.py               what a failed exchange becomes: an error
        ../watchdog.py            one timer for the limits of all attempts
        routes.py                 which proxy a request goes through; what ~/.netrc says
        redirects.py, urls.py     what a redirect asks for next; URLs as they were given
        cookie_jar.py             the cookies, and which of them are sent back
          cookies.py              what servers set
          public_suffix.py        domains that belong to nobody
          cookie_store.py         what users see of the cookies
      request.py                  what one exchange sends: its headers are decided here
      transport.py                the seam: what the policy and a transport hand each other
        transports.py             who carries an exchange: one of the next two
          h1/                     the exchange on our own core
          aiohttp_transport/      the exchange by way of aiohttp
          system_text.py          what a system's error says
        wire_log.py               only with a wire log: writes the heads
      delivery.py                 whether a server takes the body that is sent to it
      response.py                 what came back, and the one place that reads a body
      stream.py, lines.py, sse.py the body as it comes
        event_source.py           events of one stream after the other
      download.py, part_file.py   the body as a file
        kept_file.py              one that a later program goes on with
      mapping.py                  many URLs
    for_httpx.py                  httpx and httpx2 on a transport of ours
      for_httpx_response.py       what they read a body from, and the response that they give to their user
    content.py, dates.py          what headers say of a body, and of time: rules of HTTP, for any transport
    config.py, config_checks.py, limits.py, checks.py, arguments.py, auth.py, auth_base.py, digest_auth.py
    rate_limit.py, redact.py, threads.py

The public names are those of `pepperpy.network`.
"""
