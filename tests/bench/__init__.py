"""Benchmarks. ``make bench`` runs them; nothing here is a test, and nothing is timed in one."""
