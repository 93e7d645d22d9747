"""The pipeline: claims and settlements on the hot connections, and what makes them look."""
