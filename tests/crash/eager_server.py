"""``rpcshare serve``, with times and sizes so small that a second sees what otherwise takes a day."""

from functools import partial

from rpcshare.cli import main
from rpcshare.server import run
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy

COMPACTION = CompactionPolicy(tail_size=8192, tail_ratio=0.5, tail_entries=25)

vars(run).update(LogSettings=partial(LogSettings, grace=0.1, trusted_for=0.05, compaction=COMPACTION))

main()
