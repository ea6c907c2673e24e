"""What every reader and writer needs of SQLite: URLs, connections, what errors mean, and the upkeep of the tables."""
