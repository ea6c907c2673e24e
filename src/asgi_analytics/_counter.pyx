"""`itertools.count`, of which compiled code takes the next number without making an object of it."""


cdef class Counter:
    """Counts from a number on. A step cannot be interrupted by another thread."""

    def __init__(self, long long number):
        self.number = number

    def __iter__(self):
        return self

    def __next__(self):
        cdef long long number = self.number
        self.number += 1
        return number
