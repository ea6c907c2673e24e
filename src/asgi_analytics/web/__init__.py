"""HTTP services over the pipeline and the database."""
