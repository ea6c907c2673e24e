cpdef advance(ns)
