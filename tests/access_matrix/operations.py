"""Every operation on every entry point, and the right that it takes: a row each."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

from access_matrix.deployments import PASSWORD, Made

__all__ = ["CALLS", "REQUESTS", "Asked", "Call", "Messages", "Request"]

Expression = object


@dataclass(frozen=True)
class Asked:
    """What one cell is about."""

    share: Made
    secret: str | None
    """What the caller shows as the share's secret."""
    session_id: str
    """Of a session that nobody has shared."""
    token: str
    """Somebody's, to authenticate with in-band."""


class Messages:
    """Messages of one session, as a client sends them."""

    def __init__(self) -> None:
        self._lines: list[Expression] = []
        self._pushed = 0
        self._exported = 0

    def call(self, method: str, *arguments: Expression, on: int = 0) -> int:
        """Call a method of the main target, or of what an earlier call returns; return the call's id."""
        self._lines.append(["push", ["pipeline", on, [method], list(arguments)]])
        self._pushed += 1
        return self._pushed

    def callback(self) -> Expression:
        """Return a function of the client's, to be an argument."""
        self._exported -= 1
        return ["export", self._exported]

    def pulling(self, call: int) -> list[str]:
        """Return what is to be sent for all calls up to now, and for the outcome of one of them."""
        lines, self._lines = [*self._lines, ["pull", call]], []
        return [json.dumps(line) for line in lines]


@dataclass(frozen=True)
class Call:
    """An operation over RPC."""

    right: str
    make: Callable[[Messages, Asked], int]
    """Calls it, and returns the id of the call whose outcome counts."""
    of_share: bool = False
    ends_share: bool = False
    is_stream: bool = False
    """Whether a batch that is allowed it is answered no earlier than 30 s later (PROTOCOL.md, P-6)."""
    calls_back: bool = False
    """Whether it awaits an answer of its client, which a batch has no way to give."""
    hands_out: str = ""
    """The member of the answer that is a credential."""
    refused_with: str = ""
    """A code that is answered to who may do this alone: of what is asked for, there is none."""


@dataclass(frozen=True)
class Request:
    """A method of a path."""

    right: str
    body: Callable[[Asked], object] | None = None
    """What is sent, as JSON, or as a form to a page."""
    share: str = ""
    """``of``: it is about one; ``ends``: and is the end of it."""
    query: str = ""
    status: int = 200
    """When it is done."""
    kind: str = "json"
    """``json``, ``page``, ``form``, ``stream`` (which goes on for as long as somebody listens), ``socket``
    (of events) or ``rpc``."""
    sees_credentials: bool = True
    """Whether it matters who is asking. A form to sign in or to unlock looks at what is entered alone."""
    hands_out: str = ""
    """The member of the answer, or the cookie, that is a credential."""


_numbers = itertools.count()

DATA = [[{"type": "part", "data": {"id": "prt_1", "messageID": "msg_1", "text": "said in public"}}]]
PROBE = {"when": ["date", 0], "bytes": ["bytes", "AAEC"], "nested": None}


def _share_rpc(right: str, method: str, *arguments: str, **options: object) -> Call:
    """Return a call of the main target; arguments are attributes of what is asked."""
    return Call(
        right,
        lambda messages, asked: messages.call(
            method, *(_argument(messages, asked, name) for name in arguments)
        ),
        of_share="id" in arguments,
        **options,  # type: ignore[arg-type]
    )


def _held(method: str, *arguments: str, ends_share: bool = False) -> Call:
    """Return a call of a share that is held, opened in the same round trip."""
    return Call(
        "write",
        lambda messages, asked: messages.call(
            method,
            *(_argument(messages, asked, name) for name in arguments),
            on=messages.call("openShare", asked.share.id, asked.secret),
        ),
        of_share=True,
        ends_share=ends_share,
    )


def _keys(method: str, *arguments: Expression) -> Call:
    """Return a call about keys: of a new one, where it is about one."""

    def make(messages: Messages, _asked: Asked) -> int:
        keys = messages.call("keys")
        if method in ("rotate", "revoke"):
            made = messages.call("create", "dave", on=keys)
            return messages.call(method, ["pipeline", made, ["id"]], on=keys)
        return messages.call(method, *arguments, on=keys)

    return Call("keys", make, hands_out="key" if method in ("create", "rotate") else "")


def _users(method: str, *arguments: Expression) -> Call:
    """Return a call about users, of whom there are none here."""
    return Call(
        "users", lambda messages, _asked: messages.call(method, *arguments, on=messages.call("users"))
    )


def _vault(method: str, *arguments: Expression) -> Call:
    """Return a call about the vault: of an entry that is new, where it is about one."""

    def make(messages: Messages, asked: Asked) -> int:
        vault = messages.call("vault")
        # A cell is asked in several ways, of one server.
        entry = {"service": "openai", "name": f"{asked.session_id} {method} {next(_numbers)}", "value": "v"}
        if method in ("retrieve", "rotate", "revoke"):
            stored = messages.call("store", entry, on=vault)
            return messages.call(method, ["pipeline", stored, ["id"]], *arguments, on=vault)
        return messages.call(method, *([entry] if method == "store" else arguments), on=vault)

    return Call("vault", make)


def _workspaces(method: str, *arguments: Expression, of: str = "", refused_with: str = "") -> Call:
    """Return a call about workspaces: of a new one or of its files, where it is about one."""

    def make(messages: Messages, asked: Asked) -> int:
        workspaces = messages.call("workspaces")
        new = {"name": f"w{next(_numbers)}"}
        if method == "create":
            return messages.call("create", new, on=workspaces)
        if method == "list" and not of:
            return messages.call("list", on=workspaces)
        made = messages.call("create", new, on=workspaces)
        if of == "files":
            return messages.call(method, *arguments, on=messages.call("files", on=made))
        if of == "workspace":
            return messages.call(method, *arguments, on=made)
        found = messages.call("info", on=made)
        return messages.call(method, ["pipeline", found, ["id"]], *arguments, on=workspaces)

    return Call("workspaces", make, refused_with=refused_with)


def _agents(method: str, *arguments: Expression, of: str = "agent") -> Call:
    """Return a call of an agent that there is not, or of something that it asks."""

    def make(messages: Messages, _asked: Asked) -> int:
        agent = messages.call("get", "ses_0", on=messages.call("agents"))
        on = messages.call("approval", "per_0", on=agent) if of == "approval" else agent
        return messages.call(method, *arguments, on=on)

    return Call("workspaces", make, refused_with="SESSION_NOT_FOUND")


def _argument(messages: Messages, asked: Asked, name: str) -> Expression:  # noqa: PLR0911 -- one return for each kind
    match name:
        case "id":
            return asked.share.id
        case "secret":
            return asked.secret
        case "session":
            return asked.session_id
        case "token":
            return asked.token
        case "password":
            return PASSWORD
        case "callback":
            return messages.callback()
        case "data":
            return DATA
        case "probe":
            return PROBE
        case _:
            raise ValueError(name)


CALLS: dict[str, Call] = {
    "ShareRpc.createShare": _share_rpc("create", "createShare", "session", "data", hands_out="secret"),
    "ShareRpc.syncShare": _share_rpc("write", "syncShare", "id", "secret", "data"),
    "ShareRpc.deleteShare": _share_rpc("write", "deleteShare", "id", "secret", ends_share=True),
    "ShareRpc.updateShare": _share_rpc("write", "updateShare", "id", "secret"),
    "ShareRpc.createViewToken": _share_rpc("write", "createViewToken", "id", "secret", hands_out="token"),
    "ShareRpc.unlockShare": _share_rpc("unlock", "unlockShare", "id", "password", hands_out="token"),
    "ShareRpc.getShare": _share_rpc("read", "getShare", "id"),
    "ShareRpc.getShareMetadata": _share_rpc("read", "getShareMetadata", "id"),
    "ShareRpc.subscribe": _share_rpc("read", "subscribe", "id", "callback"),
    "ShareRpc.watch": _share_rpc("read", "watch", "id", is_stream=True),
    "ShareRpc.listShares": _share_rpc("list-own", "listShares"),
    "ShareRpc.searchShares": Call(
        "list-own", lambda messages, _asked: messages.call("searchShares", {"query": "public"})
    ),
    "ShareRpc.openShare": _share_rpc("write", "openShare", "id", "secret"),
    "ShareRpc.authenticate": _share_rpc("connect", "authenticate", "token"),
    "ShareRpc.keys": _share_rpc("keys", "keys"),
    "ShareRpc.whoami": _share_rpc("connect", "whoami"),
    "ShareRpc.probeValue": _share_rpc("connect", "probeValue", "probe"),
    "ShareRpc.probeCallback": _share_rpc("connect", "probeCallback", "callback", calls_back=True),
    "Share.sync": _held("sync", "data"),
    "Share.snapshot": _held("snapshot"),
    "Share.subscribe": _held("subscribe", "callback"),
    "Share.delete": _held("delete", ends_share=True),
    "KeysRpc.create": _keys("create", "dave"),
    "KeysRpc.list": _keys("list"),
    "KeysRpc.rotate": _keys("rotate"),
    "KeysRpc.revoke": _keys("revoke"),
    "ShareRpc.vault": _share_rpc("connect", "vault"),
    "VaultRpc.store": _vault("store"),
    "VaultRpc.list": _vault("list"),
    "VaultRpc.retrieve": _vault("retrieve"),
    "VaultRpc.rotate": _vault("rotate", "another"),
    "VaultRpc.revoke": _vault("revoke"),
    "ShareRpc.workspaces": _share_rpc("connect", "workspaces"),
    "WorkspacesRpc.create": _workspaces("create"),
    "WorkspacesRpc.list": _workspaces("list"),
    "WorkspacesRpc.get": _workspaces("get"),
    "WorkspacesRpc.remove": _workspaces("remove"),
    "WorkspaceRpc.info": _workspaces("info", of="workspace"),
    "WorkspaceRpc.files": _workspaces("files", of="workspace"),
    "WorkspaceRpc.update": _workspaces("update", {"resources": {"cpu": 1}}, of="workspace"),
    "FilesRpc.list": _workspaces("list", of="files"),
    "FilesRpc.find": _workspaces("find", "a", of="files"),
    "FilesRpc.search": _workspaces("search", "a", of="files"),
    "FilesRpc.read": _workspaces("read", "missing", of="files", refused_with="INVALID_ARGUMENT"),
    "ShareRpc.agents": _share_rpc("connect", "agents"),
    # There is no agent of the id, nor any model, which only who may have agents is told.
    "AgentsRpc.start": Call(
        "workspaces",
        lambda messages, _asked: messages.call(
            "start", {"workspace": "wsp_0", "model": "none/none"}, on=messages.call("agents")
        ),
        refused_with="INVALID_ARGUMENT",
    ),
    "AgentsRpc.list": Call(
        "workspaces", lambda messages, _asked: messages.call("list", on=messages.call("agents"))
    ),
    "AgentsRpc.get": Call(
        "workspaces",
        lambda messages, _asked: messages.call("get", "ses_0", on=messages.call("agents")),
        refused_with="SESSION_NOT_FOUND",
    ),
    "AgentRpc.info": _agents("info"),
    "AgentRpc.send": _agents("send", "hello"),
    "AgentRpc.ask": _agents("ask", "hello"),
    "AgentRpc.command": _agents("command", "init"),
    "AgentRpc.queue": _agents("queue"),
    "AgentRpc.unqueue": _agents("unqueue", "msg_0"),
    "AgentRpc.watch": _agents("watch"),
    "AgentRpc.approvals": _agents("approvals"),
    "AgentRpc.approval": _agents("approval", "per_0"),
    "AgentRpc.abort": _agents("abort"),
    "AgentRpc.pause": _agents("pause"),
    "AgentRpc.resume": _agents("resume"),
    "AgentRpc.terminate": _agents("terminate"),
    "AgentRpc.fork": _agents("fork"),
    "AgentRpc.revert": _agents("revert", "msg_0"),
    "AgentRpc.unrevert": _agents("unrevert"),
    "AgentRpc.diff": _agents("diff"),
    "AgentRpc.todo": _agents("todo"),
    "AgentRpc.files": _agents("files"),
    "AgentRpc.subscribe": Call(
        "workspaces",
        lambda messages, _asked: messages.call(
            "subscribe",
            messages.callback(),
            on=messages.call("get", "ses_0", on=messages.call("agents")),
        ),
        refused_with="SESSION_NOT_FOUND",
    ),
    "ApprovalRpc.info": _agents("info", of="approval"),
    "ApprovalRpc.answer": _agents("answer", "once", of="approval"),
    "ApprovalRpc.link": _agents("link", of="approval"),
    "ShareRpc.users": _share_rpc("users", "users"),
    "UsersRpc.list": _users("list"),
    "UsersRpc.get": _users("get", "usr_0"),
    "UsersRpc.setRole": _users("setRole", "usr_0", "viewer"),
    "UsersRpc.disable": _users("disable", "usr_0"),
    "UsersRpc.enable": _users("enable", "usr_0"),
    "UsersRpc.limits": _users("limits", "usr_0"),
    "UsersRpc.setLimits": _users("setLimits", "usr_0", {"shares": 1}),
    "UsersRpc.organizations": _users("organizations"),
    "UsersRpc.organizationLimits": _users("organizationLimits", "acme"),
    "UsersRpc.setOrganizationLimits": _users("setOrganizationLimits", "acme", {"shares": 1}),
    "UsersRpc.audit": _users("audit", {"organization": "acme"}),
    "UsersRpc.claimShares": _users("claimShares", "usr_0", {"subject": "alice"}),
    "CallbackSubscription.unsubscribe": Call(
        "read",
        lambda messages, asked: messages.call(
            "unsubscribe", on=messages.call("subscribe", asked.share.id, messages.callback())
        ),
        of_share=True,
    ),
}


def _secret(asked: Asked, **members: object) -> dict[str, object]:
    return members if asked.secret is None else {"secret": asked.secret, **members}


_API_OF_SHARES = {
    "POST /api/share": Request("create", lambda asked: {"sessionID": asked.session_id}, hands_out="secret"),
    "GET /api/share/{share_id}": Request("read", share="of"),
    "PATCH /api/share/{share_id}": Request("write", _secret, share="of"),
    "DELETE /api/share/{share_id}": Request("write", _secret, share="ends"),
    "POST /api/share/{share_id}/sync": Request(
        "write", lambda asked: _secret(asked, data=DATA[0]), share="of"
    ),
    "POST /api/share/{share_id}/view-token": Request("write", _secret, share="of", hands_out="token"),
    "POST /api/share/{share_id}/unlock": Request(
        "unlock", lambda _asked: {"password": PASSWORD}, share="of", hands_out="token"
    ),
    "GET /api/share/{share_id}/data": Request("read", share="of"),
    "GET /api/share/{share_id}/metadata": Request("read", share="of"),
    "GET /api/share/{share_id}/export": Request("read", share="of", query="?format=json"),
    "GET /api/share/{share_id}/parts/{part_id}/content": Request("read", share="of", kind="bytes"),
    "GET /api/share/{share_id}/events": Request("read", share="of", kind="stream"),
}

REQUESTS: dict[str, Request] = {
    "WEBSOCKET /rpc": Request("connect", kind="rpc"),
    "WEBSOCKET /rpc/share": Request("connect", kind="rpc"),
    "POST /rpc": Request("connect"),
    "POST /rpc/share": Request("connect"),
    "WEBSOCKET /ws/{share_id}": Request("read", share="of", kind="socket"),
    "GET /ws/{share_id}": Request("nothing", share="of", status=426),
    "GET /api/sessions": Request("list-own"),
    "GET /api/my-sessions": Request("list-own"),
    "GET /api/search": Request("list-own", query="?q=public"),
    **_API_OF_SHARES,
    **{name.replace("/api/share", "/api/shares"): request for name, request in _API_OF_SHARES.items()},
    "GET /api/keys": Request("vault"),
    "POST /api/keys": Request(
        "vault",
        lambda asked: {"service": "openai", "name": f"{asked.session_id} {next(_numbers)}", "value": "v"},
    ),
    # There is no entry of the id that is asked for, which only who has a vault is told.
    "GET /api/keys/{entry_id}": Request("vault", status=400),
    "DELETE /api/keys/{entry_id}": Request("vault", status=400),
    "POST /api/keys/{entry_id}/rotate": Request("vault", lambda _asked: {"value": "v"}, status=400),
    "GET /api/workspaces": Request("workspaces"),
    "POST /api/workspaces": Request("workspaces", lambda _asked: {"name": f"w{next(_numbers)}"}),
    # There is no workspace of the id that is asked for, which only who may have some is told.
    "GET /api/workspaces/{workspace_id}": Request("workspaces", status=404),
    "DELETE /api/workspaces/{workspace_id}": Request("workspaces", status=404),
    "GET /api/files/search": Request("workspaces", query="?query=a&workspace=wsp_0", status=404),
    "GET /api/files/{path:path}": Request("workspaces", query="?workspace=wsp_0", status=404),
    # There is no agent of the id, nor any model, which only who may have agents is told.
    "POST /api/sessions": Request(
        "workspaces",
        lambda _asked: {"workspace": "wsp_0", "config": {"model": "none/none"}},
        status=400,
    ),
    "GET /api/sessions/{session_id}": Request("workspaces", status=404),
    "DELETE /api/sessions/{session_id}": Request("workspaces", status=404),
    "POST /api/sessions/{session_id}/messages": Request(
        "workspaces", lambda _asked: {"content": "hello"}, status=404
    ),
    "POST /api/sessions/{session_id}/commands": Request(
        "workspaces", lambda _asked: {"name": "init"}, status=404
    ),
    "GET /api/sessions/{session_id}/queue": Request("workspaces", status=404),
    "DELETE /api/sessions/{session_id}/queue/{message_id}": Request("workspaces", status=404),
    "GET /api/sessions/{session_id}/events": Request("workspaces", status=404),
    "WEBSOCKET /api/sessions/{session_id}/ws": Request("workspaces", kind="socket", status=404),
    "GET /api/sessions/{session_id}/ws": Request("nothing", status=426),
    "GET /api/sessions/{session_id}/approvals": Request("workspaces", status=404),
    "GET /api/sessions/{session_id}/approvals/{approval_id}": Request("workspaces", status=404),
    "POST /api/sessions/{session_id}/approvals/{approval_id}": Request(
        "workspaces", lambda _asked: {"answer": "once"}, status=404
    ),
    "POST /api/sessions/{session_id}/approvals/{approval_id}/link": Request("workspaces", status=404),
    **{
        f"POST /api/sessions/{{session_id}}/{name}": Request("workspaces", status=404)
        for name in ("abort", "pause", "resume", "fork", "unrevert")
    },
    "POST /api/sessions/{session_id}/revert": Request(
        "workspaces", lambda _asked: {"messageID": "msg_0"}, status=404
    ),
    "GET /api/sessions/{session_id}/diff": Request("workspaces", status=404),
    "GET /api/sessions/{session_id}/todo": Request("workspaces", status=404),
    "GET /share/{share_id}": Request("read", share="of", kind="page"),
    "GET /share/{share_id}/part/{part}": Request("read", share="of", kind="page"),
    "GET /share/{share_id}/live": Request("read", share="of", kind="stream"),
    "WEBSOCKET /share/{share_id}/live": Request("read", share="of", kind="socket"),
    "POST /share/{share_id}/unlock": Request(
        "unlock",
        lambda _asked: {"password": PASSWORD},
        share="of",
        status=303,
        kind="form",
        sees_credentials=False,
        hands_out="__Secure-rpcshare_view",
    ),
    "GET /sessions": Request("list-own", kind="page"),
    "GET /keys": Request("keys", kind="page"),
    "POST /keys": Request(
        "keys",
        lambda _asked: {"name": "dave", "create": "1"},
        status=303,
        kind="form",
        hands_out="__Host-rpcshare_made_key",
    ),
    # There is no key of the id that is asked for, which only who may manage keys is told.
    "POST /keys/{key_id}/rotate": Request("keys", status=400, kind="form"),
    "POST /keys/{key_id}/revoke": Request("keys", status=400, kind="form"),
    "GET /vault": Request("vault", kind="page"),
    "POST /vault": Request(
        "vault",
        lambda asked: {"service": "openai", "name": f"{asked.session_id} {next(_numbers)}", "value": "v"},
        status=303,
        kind="form",
    ),
    # There is no entry of the id that is asked for, which only who has a vault is told.
    "POST /vault/{entry_id}/rotate": Request("vault", lambda _asked: {"value": "v"}, status=400, kind="form"),
    "POST /vault/{entry_id}/revoke": Request("vault", status=400, kind="form"),
    "GET /workspaces": Request("workspaces", kind="page"),
    "POST /workspaces": Request(
        "workspaces", lambda _asked: {"name": f"w{next(_numbers)}"}, status=303, kind="form"
    ),
    # Nothing of that name is being made, and there is no such workspace, which only who may have one is told.
    "GET /workspaces/making/{making}": Request("workspaces", status=303, kind="page"),
    "GET /workspaces/{workspace_id}": Request("workspaces", status=404, kind="page"),
    "POST /workspaces/{workspace_id}": Request(
        "workspaces", lambda _asked: {"name": "w"}, status=404, kind="form"
    ),
    "POST /workspaces/{workspace_id}/remove": Request(
        "workspaces", lambda _asked: {"snapshot": "1"}, status=404, kind="form"
    ),
    "GET /workspaces/{workspace_id}/files": Request("workspaces", status=404, kind="page"),
    "GET /workspaces/{workspace_id}/download": Request("workspaces", status=404, kind="page"),
    "GET /agents": Request("workspaces", kind="page"),
    # There is no such workspace, and no model.
    "POST /agents": Request(
        "workspaces", lambda _asked: {"workspace": "wsp_0", "prompt": "p"}, status=400, kind="form"
    ),
    "GET /agents/webhook": Request("workspaces", kind="page"),
    "POST /agents/webhook": Request(
        "workspaces", lambda _asked: {"do": "set", "url": "http://10.0.0.1/"}, status=400, kind="form"
    ),
    # There is no such agent, which only who may have one is told.
    "GET /agents/{agent_id}": Request("workspaces", status=404, kind="page"),
    "GET /agents/{agent_id}/panel": Request("workspaces", status=404, kind="page"),
    "GET /agents/{agent_id}/live": Request("workspaces", status=404, kind="page"),
    "GET /agents/{agent_id}/diff": Request("workspaces", status=404, kind="page"),
    **{
        f"POST /agents/{{agent_id}}/{what}": Request("workspaces", status=404, kind="form")
        for what in ("send", "unqueue", "control", "requests/{request_id}", "requests/{request_id}/link")
    },
    # The token of a link is all that is looked at, and there is no such link.
    "GET /approve/{token}": Request("nothing", status=404, kind="page"),
    "POST /approve/{token}": Request("nothing", status=404, kind="form"),
    "GET /my-sessions": Request("list-own", kind="page"),
    "GET /sessions/{share_id}/delete": Request("write by name", share="of", kind="page"),
    "POST /sessions/{share_id}/delete": Request("write by name", share="ends", status=303, kind="form"),
    "GET /sign-in": Request("nothing", kind="page"),
    "POST /sign-in": Request(
        "nothing",
        lambda asked: {"token": asked.token, "next": "sessions"},
        status=303,
        kind="form",
        hands_out="__Host-rpcshare_session",
    ),
    "POST /sign-out": Request("nothing", status=303, kind="form"),
    "GET /static/{name}": Request("nothing"),
    "GET /": Request("nothing", status=302),
    "GET /healthz": Request("nothing"),
    "GET /readyz": Request("nothing"),
    "GET /metrics": Request("nothing"),
    "GET /openapi.json": Request("nothing"),
}
