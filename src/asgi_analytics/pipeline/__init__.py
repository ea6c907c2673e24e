"""Between the client and the worker: the queue, the ledger, and getting events out in time."""
