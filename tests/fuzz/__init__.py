"""A fuzzer for sessions. ``make fuzz`` runs it at length; tests/rpc/test_fuzz_messages.py runs it briefly."""
