"""Whether an implementation of Cap'n Web keeps to the protocol: cases, a runner, and a target to run on.

The cases are data (``vectors/``, described in its README): messages in and out, for implementers in any
language. ``python -m rpcshare.conformance run URL`` plays them against a server of the target, whoever made
it; ``python -m rpcshare.conformance serve`` is such a server.
"""
