"""Execution: what is held, one attempt after the other, and what each of them came to."""
