"""What is shared, and looked for, in these tests."""

import asyncio

from rpcshare.shares.share_identity import ShareCredentials


def session(title="", directory="/home/me", **fields):
    return {"type": "session", "data": {"id": "ses_1", "title": title, "directory": directory, **fields}}


def message(message_id, role="user", created=1_700_000_000_000, **fields):
    return {
        "type": "message",
        "data": {"id": message_id, "role": role, "time": {"created": created}, **fields},
    }


def text(part_id, words, message_id="msg_1", kind="text"):
    return {"type": "part", "data": {"id": part_id, "messageID": message_id, "type": kind, "text": words}}


def tool(part_id, name, arguments, output="", message_id="msg_1"):
    state = {"status": "completed", "input": arguments, "output": output}
    data = {"id": part_id, "messageID": message_id, "type": "tool", "tool": name, "state": state}
    return {"type": "part", "data": data}


async def indexed(service):
    """Wait until all that the service has been sent is in its index."""
    projection = service._shares.listing._projection
    projection.start()
    while not projection.is_up_to_date:  # noqa: ASYNC110 -- it tells nobody
        await asyncio.sleep(0.02)
    while not await projection.is_complete():  # noqa: ASYNC110 -- likewise
        await asyncio.sleep(0.02)


async def found(service, caller, query, **options):
    """Return the parts that a search finds, the best first."""
    return [hit.part_id for hit in (await service.search(caller, query, **options)).hits]


async def shared(service, caller, *data, session_id="ses_00000001") -> ShareCredentials:
    made = await service.create(caller, session_id, list(data))
    await indexed(service)
    return made
