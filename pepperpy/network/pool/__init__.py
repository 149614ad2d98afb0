"""NetworkPool: connected clients, lent to one task at a time.

pool.py          NetworkPool: the documented API
  slots.py       where each connection is, who gets the next one, when another is made
    queue.py     the tasks that wait for one
  connection.py  how one is made and checked, and whether it can be lent again
"""
