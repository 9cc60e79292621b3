"""Manifests: from YAML to checked values. No I/O here; whoever reads files or an API server hands the text in."""
