"""The exchange of one request and one answer on our own core.

decoding.py           content codings: decompresses bodies
"""
