"""Capture: what a watcher wants in the database, as SQL. Pure: nothing here asks or runs anything.

Read `ddl` (all of it), `function_source` (the function), `row_source` and `statement_source` (its two fast forms).
"""
