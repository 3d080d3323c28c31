"""Agents: sessions of a real ``opencode serve`` on workspaces, each of which is a share.

:mod:`~rpcshare.agents.caller_agents` has what a caller may do, :mod:`~rpcshare.agents.steering` what that
does to an agent. :mod:`~rpcshare.agents.agents` keeps the rows: agents, the messages that wait, what was
asked, and the events. :mod:`~rpcshare.agents.node` has the workspaces that this node runs, each a
:mod:`~rpcshare.agents.workspace_runner` with one :mod:`~rpcshare.agents.opencode_process`, which is spoken to
by :mod:`~rpcshare.agents.opencode`. Nothing of this is imported where no agents run.
"""
