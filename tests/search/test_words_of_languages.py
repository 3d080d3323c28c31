"""What other servers' users reported that they did not find: in SQLite and in PostgreSQL alike."""

import pytest
from finding import found, message, shared, text

from rpcshare.shares.reindexing import index_anew

HINDI = "\u0939\u093f\u0928\u094d\u0926\u0940"
JAPANESE = "\u3057\u308a\u3068\u308a"
POINTED = "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd"

FOUND = [
    ("a host name", "see example.com for more", "example.com"),
    ("a host name, with what ends the sentence", "see example.com.", "example.com"),
    ("an address", "write to me@jpl.nasa.gov", "@jpl.nasa.gov"),
    ("a version", "since ubuntu 20.04 it works", "ubuntu 20.04"),
    ("an assignment", "let a=b be", "a=b"),
    ("a path of Windows", "in C:\\Users\\me", "C:\\Users"),
    ("a tag", "about #needle", "#needle"),
    ("markup", "the <needle> element", "<needle>"),
    ("a share in hundred", "grew 50% since", "50%"),
    ("a question", "but why?", "why?"),
    ("the beginning of an identifier", "call sp_new1 here", "sp_new"),
    ("the middle of an identifier", "call my_sp_new1 here", "sp_new"),
    ("stop words", "to be or not to be", '"to be or not to be"'),
    ("one stop word", "what the matter is", "the"),
    ("another apostrophe", "It\u2019s K\u2019Thriss", "k'thriss"),
    ("two characters of Chinese", "\u5373\u9002\u8005\u751f\u5b58\uff0c\u751f\u5b58", "\u9002\u8005"),
    ("Latin within Chinese", "\u6b652 \u91cd\u8dd1gen-itgc\u540e50\u6761\u60ac\u7a7a\u5f15\u7528", "itgc"),
    ("Chinese beside Latin", "\u91cd\u8dd1gen-itgc\u540e50\u6761\u60ac\u7a7a\u5f15\u7528", "\u60ac\u7a7a"),
    ("Japanese", f"\u4eca\u65e5\u306f\u6210\u8a9e{JAPANESE}\u3092\u3057\u305f", JAPANESE),
    ("Korean", "\uc624\ub298 \ub05d\ub9d0\uc787\uae30 \uac8c\uc784\uc744", "\ub05d\ub9d0\uc787\uae30"),
    ("decomposed for composed", "the caf\u00e9 here", "cafe\u0301"),
    ("composed for decomposed", "the cafe\u0301 here", "caf\u00e9"),
    ("without accents", "fr\u00fchwirth", "fruhwirth"),
    ("with accents", "fruhwirth", "fr\u00fchwirth"),
    ("Hindi", f"\u0928\u092e\u0938\u094d\u0924\u0947 {HINDI}", HINDI),
    ("Hebrew without points", f"{POINTED} \u05e2\u05d5\u05dc\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
    ("Hebrew with points", "\u05e9\u05dc\u05d5\u05dd", POINTED),
    ("Arabic without vowels", "\u0643\u0650\u062a\u064e\u0627\u0628", "\u0643\u062a\u0627\u0628"),
    ("Turkish", "\u0130stanbul", "istanbul"),
    ("Greek, the last letter", "\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2"),
    ("Russian", "\u0451\u043b\u043a\u0430 \u0438 \u043c\u043e\u0439", "\u0435\u043b\u043a\u0430"),
    ("Vietnamese", "Ti\u1ebfng Vi\u1ec7t", "tieng viet"),
    ("full width", "\uff2e\uff45\uff45\uff44\uff4c\uff45", "needle"),
    ("a ligature", "the \ufb01le", "file"),
    ("a soft hyphen", "Donau\u00addampf", "donaudampf"),
    ("a joiner of no width", "nee\u200bdle", "needle"),
    ("the Ukrainian apostrophe", "\u0437\u02bc\u044f\u0432\u0430", "\u0437'\u044f\u0432\u0430"),
    ("another apostrophe for the Ukrainian", "\u0437'\u044f\u0432\u0430", "\u0437\u02bc\u044f\u0432\u0430"),
    ("a very long word, by its beginning", "x" * 3000, "x" * 900),
]


@pytest.mark.parametrize(("written", "query"), [each[1:] for each in FOUND], ids=[each[0] for each in FOUND])
async def test_is_found(searched, alice, written, query):
    await shared(searched, alice, message("msg_1"), text("prt_1", written), text("prt_2", "something else"))
    assert await found(searched, alice, query) == ["prt_1"]


@pytest.mark.parametrize("bad", ["\ud800", "a\x00b"], ids=["half of a pair", "NUL"])
async def test_characters_that_no_database_takes_keep_nothing_else_from_being_found(searched, alice, bad):
    state = {"status": "completed", "input": {"filePath": f"/a{bad}.py"}, "output": f"needle {bad}"}
    of_tool = {
        "id": f"prt_2{bad}",
        "messageID": f"msg_2{bad}",
        "type": "tool",
        "tool": f"bash{bad}",
        "state": state,
    }
    data = [
        {"type": "session", "data": {"id": "ses_1", "title": f"A title{bad}", "directory": f"/home{bad}"}},
        message(f"msg_1{bad}", f"user{bad}", modelID=f"large{bad}"),
        message(f"msg_2{bad}", "assistant", modelID=f"large{bad}"),
        text(f"prt_1{bad}", f"needle {bad}", message_id=f"msg_1{bad}"),
        {"type": "part", "data": of_tool},
    ]
    await searched.create(alice, "ses_00000001", data)
    await shared(searched, alice, message("msg_1"), text("prt_9", "a needle"), session_id="ses_00000002")
    hits = await found(searched, alice, "needle")
    assert (len(hits), "prt_9" in hits) == (3, True)
    assert (await searched.list_own(alice)).count == 2


async def test_a_share_that_the_database_does_not_take_keeps_no_other_from_being_found(
    searched, store, alice, monkeypatch, caplog
):
    monkeypatch.setattr("rpcshare.shares.search_texts.clean", lambda text: text)
    await searched.create(alice, "ses_00000001", [message("msg_1"), text("prt_1\ud800\x00", "a needle")])
    await shared(searched, alice, message("msg_1"), text("prt_9", "a needle"), session_id="ses_00000002")
    assert await found(searched, alice, "needle") == ["prt_9"]
    assert "Share 00000001 is not indexed" in caplog.text
    index = await searched._shares.listing._projection.index()
    count, (unread,) = await index_anew(store, index)
    assert (count, unread[:9]) == (2, "00000001:")
    assert await found(searched, alice, "needle") == ["prt_9"]
