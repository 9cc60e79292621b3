"""Postgres: what a watcher needs there, how it gets there, and how its rows are read.

Read `ddl` (what is wanted), `catalog` (what is there), `plan` (the difference), `apply` (making it so), and
`outbox` with `snapshot` (the reader). psycopg enters the project through this package only.
"""
