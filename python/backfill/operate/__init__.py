"""What an operator asks and does, as functions: the shell stands on them, and whatever else operators will use.

Each takes an open client and gives values. They say nothing to a terminal and read no settings.
"""
