"""Sandboxes: where a program runs that may do harm, such as a coding agent or git on somebody's repository.

:mod:`~rpcshare.sandbox.driver` says what every driver does. :mod:`~rpcshare.sandbox.bubblewrap` is the driver
``local``. :mod:`~rpcshare.sandbox.egress_proxy` is the only way out to a network. The package imports nothing
else of the project, and nothing imports it on a server that runs no agents.
"""
