"""A web application with Flask that enqueues jobs, and workers that run them."""
