"""Liveness: the heartbeat, who of the others is dead, and what health probes are told."""
