"""Files that people have of their sessions, and SyncData: reads the first, and writes files of the second.

Reads opencode's own forms and the transcripts of other agents. Knows nothing of servers, stores and pages.
"""

from rpcshare.transcripts.file_detection import read_session_file, read_session_folder
from rpcshare.transcripts.opencode import sync_data_of_agent_session
from rpcshare.transcripts.session_file import LocatedItem, SessionFile, SessionFileError, SyncData
from rpcshare.transcripts.turns import Turn, Turns, turns_of_agent_session
from rpcshare.transcripts.writing import EXPORTS, Export, ExportFormat

__all__ = [
    "EXPORTS",
    "Export",
    "ExportFormat",
    "LocatedItem",
    "SessionFile",
    "SessionFileError",
    "SyncData",
    "Turn",
    "Turns",
    "read_session_file",
    "read_session_folder",
    "sync_data_of_agent_session",
    "turns_of_agent_session",
]
