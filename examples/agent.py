"""Start an agent, allow what it asks for, and print what it says.

Run it against a server that runs agents (docs/agents.md), with the token in `.rpcshare/admin-token`
and the id of a workspace:

    RPCSHARE_TOKEN=… python examples/agent.py wsp_0123456789abcdef01234567 "Fix the failing test"
"""

import asyncio
import os
import sys

from rpcshare import ShareClient

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")


async def main(workspace: str, prompt: str) -> None:
    async with ShareClient(URL, token=TOKEN, reconnect=True) as client:
        agent = await client.agents.start(workspace, prompt, budget={"turns": 10})
        texts: dict[str, str] = {}
        async with agent.watch() as events:
            async for event in events:
                if event.type == "approval" and event.value["state"] == "asked":
                    print(f"allowed: {', '.join(event.value['patterns'])}")
                    await agent.answer(event.value["id"], "once")
                for item in event.data:
                    if item["type"] == "part" and item["data"]["type"] == "text":
                        texts[item["data"]["id"]] = item["data"]["text"]
                if event.type == "turn" and event.value["state"] == "ended":
                    break
        print(*texts.values(), sep="\n")
        await agent.terminate()


asyncio.run(main(sys.argv[1], sys.argv[2]))
