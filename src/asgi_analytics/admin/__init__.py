"""What an owner of the schema does besides migrating: refresh the aggregates, and make the roles."""
