"""Liveness: writes the heartbeat, finds out which other workers are dead, and answers health probes."""
