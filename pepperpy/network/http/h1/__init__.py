"""The exchange of one request and one answer on our own core.

transport.py          sends one request: `H1Transport`
heads.py              a request's head as bytes
pool.py               who gets which connection, what is closed
  queue.py            who waits, and who comes next
  origins.py          whom a connection leads to, and how it is made
connection.py         one connection and the exchange that it carries; the silence of the server
  upload.py           a request's body, sent beside the reading of the answer
  losses.py           what reading raises, as a `WireError`
answer.py             the answer, whose body comes as it is read
  decoding.py         content codings: decompresses bodies

The core has the way of a request where nothing goes wrong, in its module `http_exchange`: there are the bases of
`Pool`, `Origin`, `Connection` and `H1Answer`. It reads the answer in `http_reader`.
"""
