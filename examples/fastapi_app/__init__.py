"""A web application with FastAPI that enqueues jobs, and runs them in the same process."""
