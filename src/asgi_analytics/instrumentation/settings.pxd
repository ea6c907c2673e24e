from asgi_analytics._fields cimport QueueFields


cdef class CaptureSettings:
    cdef public dict alone
    cdef public bint asks_little
    cdef public bint capture_errors
    cdef public object client
    cdef public object compiled
    cdef public object endpoint
    cdef public object excluded_paths
    cdef public object excluded_prefixes
    cdef public tuple frameworks
    cdef public bint frameworks_know_users
    cdef public bint has_excluded
    cdef public bint is_warm
    cdef public bint knows_endpoints
    cdef public bint knows_users
    cdef public object lines
    cdef public object only_framework
    cdef public QueueFields queue
    cdef public object session_id
    cdef public object unrouted
    cdef public object user_id
    cdef public object writer
