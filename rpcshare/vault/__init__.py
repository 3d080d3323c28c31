"""The vault: keys of third parties, each encrypted under a key of its own.

What a dump of the database holds is of no use without the key ring, and what is in one row is of no use
in another. :mod:`~rpcshare.vault.caller_vault` knows what a caller may do, :mod:`~rpcshare.vault.vault` keeps
the entries, and :mod:`~rpcshare.vault.envelope` encrypts them.
"""
