# What a helper with only side effects returns: one compare after each call, no None to count.
cdef enum Status:
    ERROR = -1
    OK = 0
