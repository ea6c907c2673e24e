-- is_direct --
-- Answer with one row if the server process is the one that the connection was told of when it was opened: {pid}.
-- A pooler in between makes up a number of its own. Run as a simple query, which leaves no prepared statement behind.
SELECT WHERE pg_catalog.pg_backend_pid() = {pid};

-- server_process --
-- Return the number of the server process that runs this statement.
SELECT pg_catalog.pg_backend_pid();
