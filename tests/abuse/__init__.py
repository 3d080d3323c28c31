"""Callers that ask for as much as they can, thrown at a server that has little memory.

``make abuse`` runs each kind of caller against a server of its own, which may have 1 GiB. Throughout,
``/healthz`` has to answer within a second; no process may die; and when a caller has gone, the server has to
be within 50 MB of where it was. Inputs are generated from a seed, which is printed.

A kind is a module in ``tests/abuse/callers`` with ``KINDS``, a mapping of names to functions::

    def abuse(target: Target, rng: random.Random, seconds: float) -> None: ...

The function has the server to itself, asks as much as it likes for about so many seconds, and leaves nothing
open when it returns. What the server answers is its own business: errors are expected. It raises an
AssertionError if an answer is wrong, not only slow.
"""
