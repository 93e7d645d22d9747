"""A web application with Django that enqueues jobs in Django's own transactions, and workers that run them."""
