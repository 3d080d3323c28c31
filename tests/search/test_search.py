import asyncio

import pytest
from finding import found, indexed, message, session, shared, text, tool

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.search_hits import marks_of
from rpcshare.shares.search_query import SearchQuery

WORDS = [
    ("serializer", ["prt_1"]),
    ("SERIAL", ["prt_1"]),
    ("serial*", ["prt_1"]),
    ('"serial"', []),
    ('"the serializer fails"', ["prt_1"]),
    ('"fails the serializer"', []),
    ("serializer fails", ["prt_1"]),
    ("serializer absent", []),
    ("fails -serializer", ["prt_2"]),
    ('fails -"the parser"', ["prt_1"]),
    ("cafe", ["prt_3"]),
    ("CAFÉ", ["prt_3"]),
    ("straße", ["prt_3"]),
    ("strasse", ["prt_3"]),
    ("STRASSE", ["prt_3"]),
    ('"der strasse"', ["prt_3"]),
    ("cafe -strasse", []),
    ("klaß", ["prt_8"]),
    ("数据", ["prt_4"]),
    ("据", ["prt_4"]),
    ("据数", []),
    ("React", ["prt_4"]),
    ("สวัสดี", ["prt_5"]),
    ("foo_bar", ["prt_6"]),
    ("src/app.ts", ["prt_6"]),
    ("example.com/a-b", ["prt_6"]),
    ("사용자", ["prt_7"]),
]


async def test_words_phrases_and_beginnings_are_found(searched, alice):
    await shared(
        searched,
        alice,
        session("Title"),
        message("msg_1"),
        text("prt_1", "Why the serializer fails: it does"),
        text("prt_2", "the parser fails"),
        text("prt_3", "Un café in der Straße"),
        text("prt_4", "我们用React处理数据库"),
        text("prt_5", "ทักทายว่าสวัสดีครับ"),
        text("prt_6", "let foo_bar = 1; // src/app.ts, https://example.com/a-b?c=1"),
        text("prt_7", "사용자가 로그인했다"),
        text("prt_8", "class Klasse: pass"),
    )
    for query, parts in WORDS:
        assert (query, await found(searched, alice, query)) == (query, parts)


FILTERS = [
    ("needle tool:bash", {"prt_2"}),
    ("needle -tool:bash", {"prt_1", "prt_3", "prt_4"}),
    ("needle file:app.ts", {"prt_3"}),
    ("needle file:APP", {"prt_3"}),
    ("needle file:a_p", set()),
    ("needle role:user", {"prt_1"}),
    ("needle -role:user", {"prt_2", "prt_3", "prt_4"}),
    ("needle before:2024-01-01", {"prt_1"}),
    ("needle after:2024-01-01", {"prt_2", "prt_3", "prt_4"}),
    ("needle after:2023-01-01 before:2024-01-01", {"prt_1"}),
    ("needle -before:2024-01-01", {"prt_2", "prt_3", "prt_4"}),
    ("needle -after:2024-01-01", {"prt_1"}),
    ("needle before:2024-01-01 before:2030-01-01", {"prt_1"}),
    ("needle -before:2000-01-01 after:2024-01-01 -before:2001-01-01", {"prt_2", "prt_3", "prt_4"}),
]


async def test_filters_choose_among_what_is_found(searched, alice):
    await shared(
        searched,
        alice,
        message("msg_1", "user", 1_700_000_000_000),
        message("msg_2", "assistant", 1_760_000_000_000),
        text("prt_1", "needle"),
        tool("prt_2", "bash", {"command": "grep needle"}, message_id="msg_2"),
        tool("prt_3", "edit", {"filePath": "/src/App.ts", "newString": "needle"}, message_id="msg_2"),
        tool("prt_4", "read", {"filePath": "/b"}, "a needle in here", message_id="msg_2"),
    )
    for query, parts in FILTERS:
        assert (query, set(await found(searched, alice, query))) == (query, parts)


async def test_titles_reasoning_diffs_and_file_names_are_found(searched, alice):
    await shared(
        searched,
        alice,
        session("Wombat census", "/home/quokka"),
        message("msg_1", summary={"diffs": [{"file": "bandicoot.py", "patch": "+numbat"}]}),
        text("prt_1", "thinking of a bilby", kind="reasoning"),
        {"type": "session_diff", "data": [{"file": "echidna.rs", "before": "", "after": "fn platypus() {}"}]},
        {
            "type": "part",
            "data": {"id": "prt_2", "messageID": "msg_1", "type": "file", "filename": "dugong.pdf"},
        },
    )
    for word in ("wombat", "quokka", "bandicoot", "numbat", "bilby", "echidna", "platypus", "dugong"):
        (hit,) = (await searched.search(alice, word)).hits
        assert hit.title == "Wombat census"
        assert word in hit.snippet.lower()


async def test_a_hit_says_where_it_is(searched, alice):
    made = await shared(
        searched, alice, message("msg_1", created=1_700_000_000_123), text("prt_1", "a needle")
    )
    (hit,) = (await searched.search(alice, "needle")).hits
    assert (hit.share_id, hit.message_id, hit.part_id) == (made.id, "msg_1", "prt_1")
    assert (hit.snippet, hit.time) == ("a needle", 1_700_000_000_123)


async def test_of_equal_matches_the_newer_comes_first_and_pages_follow_each_other(searched, alice):
    data = []
    for number in range(5):
        data.append(message(f"msg_{number}", created=1_700_000_000_000 + number * 10 * 86_400_000))
        data.append(text(f"prt_{number}", "needle", f"msg_{number}"))
    await shared(searched, alice, *data)
    first = await searched.search(alice, "needle", limit=3)
    rest = await searched.search(alice, "needle", limit=3, cursor=first.cursor)
    assert [hit.part_id for hit in (*first.hits, *rest.hits)] == [f"prt_{n}" for n in (4, 3, 2, 1, 0)]
    assert rest.cursor is None


async def test_what_says_it_more_often_and_what_a_share_is_called_comes_first(searched, alice):
    parts = [text("prt_1", "a needle and hay " * 2), text("prt_2", "a needle and " + "hay " * 9)]
    await shared(searched, alice, session("Of one needle"), message("msg_1"), *parts)
    hits = (await searched.search(alice, '"needle"')).hits
    assert [hit.part_id for hit in hits] == [None, "prt_1", "prt_2"]


async def test_hits_of_others_leave_room_for_ones_own(searched, alice, bob, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.search_hits.MAX_HITS", 5)
    await shared(searched, alice, message("msg_1", created=1_700_000_000_000), text("prt_0", "needle"))
    later = [message("msg_1", created=1_760_000_000_000), *(text(f"prt_{n}", "needle") for n in range(1, 9))]
    await shared(searched, bob, *later, session_id="ses_00000002")
    assert await found(searched, alice, "needle") == ["prt_0"]
    assert len(await found(searched, bob, "needle")) == 5


async def test_a_beginning_finds_words_however_many_begin_so(searched, alice, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.search_hits._SPELLED_OUT", (2, 8))
    monkeypatch.setattr("rpcshare.shares.search_hits._FEWEST", 2)
    words = [text(f"prt_{n}", f"needle{n}") for n in range(5)]
    await shared(searched, alice, message("msg_1"), *words, text("prt_9", "nee"))
    assert set(await found(searched, alice, "nee")) == {f"prt_{n}" for n in (0, 1, 2, 3, 4, 9)}
    assert set(await found(searched, alice, "needle3")) == {"prt_3"}
    assert await found(searched, alice, '"nee"') == ["prt_9"]


async def test_marks_of_the_index_are_no_words(searched, alice):
    await shared(searched, alice, message("msg_1"), tool("prt_1", "bash", {"command": "needle"}))
    mark = marks_of("alice", "bash", "user")[0]
    for query in (mark[1:], f"needle {mark[1:3]}", f'"{mark}"'):
        assert await found(searched, alice, query) == []


async def test_nobody_finds_what_he_may_not_list(searched, alice, bob, admin, anonymous):
    await shared(searched, alice, message("msg_1"), text("prt_1", "needle"))
    assert await found(searched, bob, "needle") == []
    assert (await searched.search(bob, "needle")).cursor is None
    assert await found(searched, alice, "needle") == ["prt_1"]
    assert await found(searched, admin, "needle") == ["prt_1"]
    with pytest.raises(ShareError) as caught:
        await searched.search(anonymous, "needle")
    assert caught.value.code is ErrorCode.UNAUTHORIZED


async def test_a_deleted_share_is_not_found_from_the_moment_that_it_is_deleted(searched, alice):
    made = await shared(searched, alice, message("msg_1"), text("prt_1", "needle"))
    await searched.delete(alice, made.id, None)
    assert await found(searched, alice, "needle") == []


async def test_an_expired_share_is_not_found(new_service, searching, alice):
    now = [1_700_000_000_000]
    service = new_service(search=searching(), clock=lambda: now[0])
    await service.create(alice, "ses_1", [text("prt_1", "needle")], {"expiresIn": 60})
    await indexed(service)
    assert await found(service, alice, "needle") == ["prt_1"]
    now[0] += 61_000
    assert await found(service, alice, "needle") == []


async def test_replaced_text_is_found_no_more(searched, alice):
    made = await shared(searched, alice, message("msg_1"), text("prt_1", "needle"), text("prt_2", "other"))
    await searched.sync(alice, made.id, None, [text("prt_1", "haystack")])
    await indexed(searched)
    assert await found(searched, alice, "needle") == []
    assert await found(searched, alice, "haystack") == ["prt_1"]
    assert await found(searched, alice, "other") == ["prt_2"]


async def test_what_was_taken_back_is_found_no_more_until_it_is_brought_back(searched, alice):
    made = await shared(
        searched,
        alice,
        session("x"),
        message("msg_1"),
        message("msg_2"),
        text("prt_1", "needle one"),
        text("prt_2", "needle two", "msg_2"),
        text("prt_3", "needle three", "msg_2"),
    )
    await searched.sync(alice, made.id, None, [session("x", revert={"messageID": "msg_2"})])
    await indexed(searched)
    assert await found(searched, alice, "needle") == ["prt_1"]
    await searched.sync(
        alice, made.id, None, [session("x", revert={"messageID": "msg_2", "partID": "prt_3"})]
    )
    await indexed(searched)
    assert set(await found(searched, alice, "needle")) == {"prt_1", "prt_2"}
    await searched.sync(alice, made.id, None, [session("x")])
    await indexed(searched)
    assert set(await found(searched, alice, "needle")) == {"prt_1", "prt_2", "prt_3"}


async def test_what_looks_like_a_credential_is_not_found(searched, alice):
    key = "ghp_" + "x9Kq" * 9
    await shared(searched, alice, message("msg_1"), text("prt_1", f"the key {key} works"))
    assert await found(searched, alice, f'"{key}"') == []
    assert await found(searched, alice, "works") == ["prt_1"]


async def test_the_beginning_and_the_end_of_a_huge_output_are_found(searched, alice):
    output = f"first {'x ' * 500_000} last"
    await shared(searched, alice, message("msg_1"), tool("prt_1", "bash", {"command": "y"}, output))
    assert await found(searched, alice, "first") == ["prt_1"]
    assert await found(searched, alice, "last") == ["prt_1"]


async def refusal(service, caller, query):
    """Return why a query is refused, or None if it is not."""
    try:
        await service.search(caller, query)
    except ShareError as exc:
        return exc.code
    return None


# fmt: off
HOSTILE = [
    '"', '""', "*", "-", "a*b", "AND", "NOT", "a OR", "NEAR(a b", "(", "body:x", "owner : x", "{body}: x",
    "'", "a'b", "\\", "a\\", "a & | ! <->", "a:*", "\0", "a\0b", "\ud800", "a\ud800", "^a", "-a", "%", "_",
    "😀", "a" * 1000, "a " * 30, '"a" "b', "text_index", "--", ";DROP TABLE texts", "tool:", "file:%",
    "a file:\\ file:' -file:\"x", "x role:\0", "\u202ea", "\u1fff\u0301", "a" * 900 + "*", "é" * 600,
    "rowid:1", "x before:0001-01-01", "x after:9999-12-31",
]
# fmt: on


async def test_hostile_queries_find_or_are_refused_and_break_nothing(searched, alice):
    await shared(searched, alice, text("prt_1", "harmless AND \0 ' \\ \ud800 owner body " + "w" * 5000))
    for query in HOSTILE:
        assert await refusal(searched, alice, query) in (None, ErrorCode.INVALID_ARGUMENT), query
    assert await found(searched, alice, "harmless") == ["prt_1"]


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("", {}, "query: must have at least one word"),
        (None, {}, "query: must be a string"),
        ("x" * 1001, {}, "query: must be at most 1000 characters"),
        ("x " * 33, {}, "query: must be at most 32 words"),
        ("x before:yesterday", {}, "query: before: must be a date"),
        ("x", {"limit": 101}, "limit: must be a whole number from 1 to 100"),
        ("x", {"cursor": "0"}, "cursor: is not one that this server gave"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_with_its_reason(
    searched, alice, query, options, message
):
    with pytest.raises(ShareError, match=message) as caught:
        await searched.search(alice, query, **options)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_service_without_a_database_makes_one_of_its_own(service, alice):
    await service.create(alice, "ses_00000001", [message("msg_1"), text("prt_1", "a walrus")])
    assert await found(service, alice, "walrus") == ["prt_1"]


async def test_searches_and_syncs_at_once_do_not_fail(searched, alice):
    made = await shared(searched, alice, message("msg_1"), text("prt_1", "needle"))

    async def sync(number):
        await searched.sync(alice, made.id, None, [text(f"prt_{number}", "needle")])

    await asyncio.gather(*map(sync, range(2, 40)), *(found(searched, alice, "needle") for _ in range(20)))
    await indexed(searched)
    assert len(await found(searched, alice, "needle", limit=100)) == 39


async def test_words_are_found_behind_what_colours_them(new_service, searching, alice):
    service = new_service(search=searching())
    output = "\x1b[38;5;208morange\x1b[0m \x1b]0;title\x07apple \x1b(Bpear"
    await service.create(alice, "ses_00000001", [message("msg_1"), tool("prt_1", "bash", {}, output)])
    await indexed(service)
    for word in ("orange", "apple", "pear"):
        assert await found(service, alice, word) == ["prt_1"]


def test_a_term_that_comes_twice_is_looked_for_once():
    query = SearchQuery.parse('lorem LOREM lorem "lorem ipsum" -dolor -Dolor')
    assert [term.words for term in query.wanted] == [("lorem",), ("lorem", "ipsum")]
    assert len(query.unwanted) == 1
