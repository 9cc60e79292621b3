"""Postgres: what a watcher needs there, how it gets there, and how its rows are read.

`capture` says what is wanted, `install` makes it so, `ring` reads what was captured, each over a `connection`. What
listeners and people tell one another through the database stands beside them: `requests`, `parked`, `progress`,
`standing`. psycopg enters the project through this package only.
"""
