"""Workspaces: directories that agents work on, and that their owners look into.

:mod:`~rpcshare.workspaces.caller_workspaces` knows what a caller may do.
:mod:`~rpcshare.workspaces.workspaces`
keeps the rows and the directories, :mod:`~rpcshare.workspaces.files` reads in them without being led out, and
:mod:`~rpcshare.workspaces.git_clone` fills them. Nothing of this is imported where no agents run.
"""
