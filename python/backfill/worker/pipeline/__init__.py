"""The pipeline: sends claims and settlements on the hot connections, and decides when to look for jobs."""
