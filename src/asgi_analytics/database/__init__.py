"""What every reader and writer needs of PostgreSQL: URLs, names, connections, and which flavour a server is."""
