"""Messages over a client: codecs whose messages are bytes, codecs of values, and what reads and writes with them."""
