# The result of a function that is called for its effect. ERROR means that an exception is set: the caller compares one
# integer, and no reference to None is counted.
cdef enum Status:
    ERROR = -1
    OK = 0
