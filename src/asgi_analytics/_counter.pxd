cdef class Counter:
    cdef long long number
