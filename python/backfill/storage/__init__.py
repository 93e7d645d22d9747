"""Everything that speaks SQL: statements and migrations by file, their loading, connections, rows.

It knows no worker.
"""
