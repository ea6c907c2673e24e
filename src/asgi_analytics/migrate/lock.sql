-- try_lock --
-- Take the lock $1 for the session unless another session has it; tell whether it was taken.
SELECT pg_catalog.pg_try_advisory_lock($1);

-- try_transaction_lock --
-- Take the lock $1 until the end of the transaction unless another session has it; tell whether it was taken.
SELECT pg_catalog.pg_try_advisory_xact_lock($1);

-- unlock --
-- Give the session's lock $1 back.
SELECT pg_catalog.pg_advisory_unlock($1);

-- holder --
-- Return the server process that has the lock $1.
SELECT pid FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (classid::bigint << 32) | objid::bigint = $1;
