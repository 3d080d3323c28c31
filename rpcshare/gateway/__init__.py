"""The model gateway: agents reach the providers of models through it, without a key and without a network.

:mod:`~rpcshare.gateway.models` has the tables ``[models.NAME]``, :mod:`~rpcshare.gateway.gateway` serves on a
Unix socket for each sandbox, :mod:`~rpcshare.gateway.wires` knows what of a request is let through, and
:mod:`~rpcshare.gateway.metering` what an answer has cost.
"""
