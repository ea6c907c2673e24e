"""What captures: the middleware, the decorators, and one package per database driver."""
