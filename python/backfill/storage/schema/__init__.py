"""The schema: its migrations, the version that a database has, and how it is brought up to date."""
