"""Says what each verb asks of the database, without any I/O.

That is: the checks of its arguments, its statements with their parameters, and how their rows are read.

There is a module for each topic, with a function for each verb. Nothing here awaits anything, so any kind of client,
synchronous or asynchronous, can carry out what the functions return; `client/asking.py` does so for the asynchronous
client.
"""
