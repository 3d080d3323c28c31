"""Servers that are killed at any moment, and what must be there afterwards.

That every single step of appending, compacting, deleting and upgrading may be the last one is shown,
step by step, in tests/shares/test_share_crashes.py and tests/shares/test_older_layout.py. Here whole
processes die under load, with all that they were doing at once. ``make crash`` does so 200 times.
"""
