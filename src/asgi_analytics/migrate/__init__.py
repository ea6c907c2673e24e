"""The schema, step by step: which files there are, which of them are pending, and how they are applied."""
