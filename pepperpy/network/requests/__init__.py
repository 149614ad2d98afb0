"""Requests and their replies over a client: one exchange at a time, or many in flight.

exchanges.py    NetworkClient.request(): one exchange after the other
pipeline.py     NetworkClient.pipeline(): many in flight, answered in order or by id
turns.py        whose turn it is; for both
failures.py     when a request's time is up, and what a failed one does to the others; for both
"""
