"""Messages over a client: `NetworkClient.framed(codec)`.

framed.py            Framed: sends and receives messages over the client's connection
codec_protocols.py   what a codec is, also one of your own
codecs.py            codecs whose messages are bytes: by length, by separator, ...
  frame_codec.py     what they share
values.py            codecs whose messages are values: Mapped, JSONLines, TextLines, MsgPack
"""
