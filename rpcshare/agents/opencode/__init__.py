"""What agents are to ``opencode serve``, and it to them.

:mod:`~rpcshare.agents.opencode.binary` finds the program and says how it is run,
:mod:`~rpcshare.agents.opencode.client` speaks its HTTP API as 1.x has it, and
:mod:`~rpcshare.agents.opencode.events` reads what it tells. Nothing else of the package knows its forms.
"""
