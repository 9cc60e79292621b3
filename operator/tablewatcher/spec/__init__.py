"""Manifests: from YAML to checked values. No I/O here; whoever reads files or an API server hands the text in.

Read `parse` (the way through), `schema` (which fields there are), `rules` (what one field asks of another), `model`
(what comes out).
"""
