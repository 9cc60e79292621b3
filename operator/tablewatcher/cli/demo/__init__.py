"""The demonstration: a database, a broker and an endpoint of its own, real changes, and a count of what arrives."""
