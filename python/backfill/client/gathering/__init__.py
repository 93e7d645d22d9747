"""Enqueues that arrive while another one is on its way, and that go together.

waiting: the calls that wait, and which of them go in one statement · rows: their statement and its result · refusals:
what is done if the server refuses them · senders: when they go, and who is told what came of it · notices: how often
workers are notified.
"""
