"""Servers that are killed at any moment, and what must be there afterwards.

That every single step of appending, compacting, deleting and upgrading may be the last one is shown,
call by call, in tests/shares/test_share_crashes.py and tests/shares/test_legacy_layout.py. Here whole
processes die: at each step that has a name (steps.py), and under load, with all that they were doing at
once. ``make crash`` does the latter 200 times.
"""
