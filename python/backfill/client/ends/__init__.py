"""The client's verbs for ends: how jobs finished, and the wait for a result."""
