"""The scheduler of a worker: it enqueues the jobs of recurring items when their runs are due."""
