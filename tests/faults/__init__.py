"""Faults of processes, of the server and of the network between them, a file a kind; a fleet must bear all of them."""
