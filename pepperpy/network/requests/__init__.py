"""Requests and their replies over a client: one exchange at a time, or many in flight."""
