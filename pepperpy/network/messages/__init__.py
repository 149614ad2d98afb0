"""Messages over a client: `NetworkClient.framed(codec)`.

framed.py     Framed: sends and receives messages over the client's connection
codecs.py     what a codec is, and those whose messages are bytes: by length, by separator, ...
values.py     codecs whose messages are values: Mapped, JSONLines, TextLines, MsgPack
"""
