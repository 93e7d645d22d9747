"""Faults of processes, of the server and of the network between, a file a kind, and a fleet that must bear all of them."""
