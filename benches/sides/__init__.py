"""What benchmarks compare: ours, and the bare thing beside it."""
