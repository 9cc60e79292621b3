"""Installing capture: `catalog` looks at what is there, `preflight` and `plan` decide, `apply` acts.

`survey` gathers all that stands against a plan at once, for the commands `plan` and `doctor`; `script` writes a
plan down for a DBA.
"""
