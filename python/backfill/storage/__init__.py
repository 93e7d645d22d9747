"""Everything that speaks SQL: the files of statements and migrations, their loading, connections and rows.

Nothing here imports the worker.
"""
