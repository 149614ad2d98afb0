"""The exchange of one request and one answer by way of aiohttp.

wire.py               aiohttp's session: sends one request
connector.py          its pool, and what closes the gaps of aiohttp's
  resolver.py         addresses from ../../lookup.py
  socks.py            a socket through a SOCKS proxy
session_cookies.py    the client's cookie jar as aiohttp's sessions want it
translate.py          aiohttp's exceptions into those of this package
"""
