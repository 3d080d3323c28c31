"""The tools of other agents by the names and arguments that opencode has for the same."""

from rpcshare.transcripts.json_fields import JsonObject

__all__ = ["diff_of_patch", "opencode_tool"]

_FILE = {"file_path": "filePath", "absolute_path": "filePath", "path": "path"}
_EDIT = {**_FILE, "old_string": "oldString", "new_string": "newString", "replace_all": "replaceAll"}

_TOOLS: dict[str, tuple[str, dict[str, str]]] = {
    # Claude Code
    "Bash": ("bash", {}),
    "Read": ("read", _FILE),
    "Edit": ("edit", _EDIT),
    "Write": ("write", _FILE),
    "Glob": ("glob", {}),
    "Grep": ("grep", {"glob": "include"}),
    "LS": ("list", {}),
    "Task": ("task", {}),
    "Agent": ("task", {}),
    "TodoWrite": ("todowrite", {}),
    "WebFetch": ("webfetch", {}),
    "WebSearch": ("websearch", {}),
    "AskUserQuestion": ("question", {}),
    # Gemini CLI
    "run_shell_command": ("bash", {}),
    "read_file": ("read", _FILE),
    "write_file": ("write", _FILE),
    "replace": ("edit", _EDIT),
    "glob": ("glob", {}),
    "search_file_content": ("grep", {}),
    "grep_search": ("grep", {}),
    "list_directory": ("list", {"dir_path": "path"}),
    "web_fetch": ("webfetch", {}),
    "google_web_search": ("websearch", {}),
    # Codex
    "shell": ("bash", {}),
    "container.exec": ("bash", {}),
    "shell_command": ("bash", {}),
    "exec_command": ("bash", {"cmd": "command"}),
    "local_shell": ("bash", {}),
}


def opencode_tool(name: str, arguments: JsonObject) -> tuple[str, JsonObject]:
    """Return a tool's name and arguments as opencode has them; as they are, if it has no such tool."""
    known, renamed = _TOOLS.get(name, (name, {}))
    made = {renamed.get(key, key): value for key, value in arguments.items()}
    command = made.get("command")
    if known == "bash" and isinstance(command, list):
        made["command"] = _shell_line([str(word) for word in command])
    return known, made


def _shell_line(words: list[str]) -> str:
    # What a shell is given to run is what was meant: bash -lc SCRIPT.
    if len(words) == 3 and words[1] in ("-c", "-lc"):
        return words[2]
    return " ".join(words)


def diff_of_patch(file: str, hunks: object) -> JsonObject:
    """Return the metadata of an edit whose hunks are as the npm package ``diff`` makes them; else none."""
    lines: list[str] = []
    for hunk in hunks if isinstance(hunks, list) else ():
        if not isinstance(hunk, dict) or not isinstance(hunk.get("lines"), list):
            return {}
        numbers = "-{oldStart},{oldLines} +{newStart},{newLines}".format_map(_Numbers(hunk))
        lines += (f"@@ {numbers} @@", *map(str, hunk["lines"]))
    if not lines:
        return {}
    additions = sum(line.startswith("+") for line in lines)
    deletions = sum(line.startswith("-") for line in lines)
    patch = "\n".join((f"--- {file}", f"+++ {file}", *lines, ""))
    return {
        "diff": patch,
        "filediff": {"file": file, "patch": patch, "additions": additions, "deletions": deletions},
    }


class _Numbers(dict[str, object]):
    def __missing__(self, key: str) -> object:
        return 0
