"""A connection to the database: from a Secret or a string to a session, encrypted, through poolers, its faults
explained.
"""
