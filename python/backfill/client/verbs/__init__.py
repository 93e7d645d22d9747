"""What each verb asks of the database, free of I/O.

That is the checks of its arguments, its statements with their parameters, and how their rows are read.

A module a topic, with a function for each verb. Nothing here awaits anything, so a client of any kind, awaited or not,
can carry these out; `client/asking.py` does it for the asynchronous one.
"""
