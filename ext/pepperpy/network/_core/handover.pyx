"""What a task awaits until somebody gives it something: a connection of a pool, its turn, a reply.

A future counts as done before it asks the loop to run its task. Where there is no memory for that, the task sleeps for
ever, and nobody has what it was given. A `Waiter` still waits then, so the giver still has it.
"""

from pepperpy.network._core.waiter cimport Waiter, new_waiter


cdef class Handover:
    """One task awaits it, once. What it was given is in `outcome` then.

    Attributes:
        outcome: What was given; None before.
        is_given: Whether something was given. That may be None.
    """
    cdef:
        readonly object outcome
        readonly bint is_given
        Waiter _waiter

    def __init__(self, loop):
        self._waiter = new_waiter(loop)

    @property
    def is_over(self):
        """Whether nobody waits any more: something was given, or the task was cancelled."""
        return self._waiter.is_done()

    def give(self, outcome):
        """Give something to the task, which must still wait. It goes on in the next turn of the loop.

        If this raises, the task still waits, and nothing was given.
        """
        self.outcome = outcome
        self.is_given = True
        try:
            self._waiter.wake(False)
        except BaseException:
            self.outcome = None
            self.is_given = False
            raise

    def __await__(self):
        return self._waiter
