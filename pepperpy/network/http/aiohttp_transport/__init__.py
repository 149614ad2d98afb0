"""The exchange of one request and one answer by way of aiohttp.

wire.py               aiohttp's sessions: sends one request
  payload.py          the request's body as aiohttp wants it
answer.py             its response
connector.py          its pool, and what closes the gaps of aiohttp's
  handler.py          one connection of it
  resolver.py         addresses from ../../lookup.py
  guard.py            which addresses it may connect to
  proxies.py          credentials for a proxy that is asked for a tunnel
  socks.py            a socket through a SOCKS proxy
session_cookies.py    the client's cookie jar as aiohttp's sessions want it
translate.py          its exceptions as kinds of WireError
"""
