"""NetworkPool: connected clients, lent to one task at a time.

pool.py          NetworkPool: the documented API
  slots.py       who gets the next connection, and the end of the pool
  supply.py      when another connection is made, and how each one ends
  queue.py       the tasks that wait for one
  connection.py  how one is made and checked
"""
