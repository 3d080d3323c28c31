"""What the pages of the older deployment showed, and its links to messages."""

from support.drawing_shares import Document, page_of

ITEMS: list[object] = [
    {"type": "session", "data": {"id": "ses_1", "title": "Moved"}},
    {"type": "message", "data": {"id": "msg_2", "role": "assistant", "modelID": "large", "providerID": "acme",
                                 "time": {"created": 1_700_000_000_002, "completed": 1_700_000_000_003}}},
    {"type": "part", "data": {"id": "prt_2", "messageID": "msg_2", "type": "text", "text": "First\nsecond"}},
    {"type": "message", "data": {"id": "msg_1", "role": "user", "time": {"created": 1_700_000_000_001}}},
    {"type": "part", "data": {"id": "prt_1", "messageID": "msg_1", "type": "text", "text": "Hello"}},
]  # fmt: skip


def test_a_message_is_found_by_its_anchor_of_the_older_form() -> None:
    ids = [attributes.get("id") for _, attributes in Document(page_of(ITEMS)).elements]
    assert "msg-msg_1" in ids
    assert ids.index("msg-msg_1") < ids.index("msg-msg_2")


def test_the_provider_stands_beside_the_model() -> None:
    assert "large · acme" in page_of(ITEMS)


def test_it_says_how_many_syncs_there_were() -> None:
    assert "<dt>Syncs</dt><dd>1</dd>" in page_of(ITEMS)


def test_a_text_keeps_its_line_breaks() -> None:
    assert "First<br>\nsecond" in page_of(ITEMS)
