"""The merge as PROTOCOL.md says it, done as plainly as can be: what every share is compared with."""

import json


class PlainShare:
    """Applies batches to lists and dicts, and says what AgentSession must be."""

    def __init__(self):
        self.session = None
        self.messages, self.parts, self.diffs, self.models = [], [], [], []
        self.sync_count = 0

    def sync(self, batch):
        for item in json.loads(json.dumps(batch)):
            data = item["data"]
            if item["type"] == "session":
                self.session = data
            elif item["type"] == "message":
                replace_or_append(self.messages, data, lambda message: message["id"])
            elif item["type"] == "part":
                replace_or_append(self.parts, data, lambda part: part["id"])
            elif item["type"] == "session_diff":
                self.diffs.extend(data)
            else:
                for model in data:
                    replace_or_append(self.models, model, model_identity)
        self.sync_count += 1

    def sync_data(self):
        single = [("session", [self.session]), ("message", self.messages), ("part", self.parts)]
        items = [{"type": kind, "data": data} for kind, held in single for data in held]
        if self.diffs:
            items.append({"type": "session_diff", "data": self.diffs})
        if self.models:
            items.append({"type": "model", "data": self.models})
        return items


def model_identity(model):
    provider = model.get("providerID")
    return provider if isinstance(provider, str) else None, model["id"]


def replace_or_append(held, data, identity):
    for place, other in enumerate(held):
        if identity(other) == identity(data):
            held[place] = data
            return
    held.append(data)


def assert_same(agent_session, plain):
    """Compare the JSON of an AgentSession with what ``plain`` says."""
    found = json.loads(agent_session)
    if plain.session is not None:
        assert found["session"] == plain.session
    assert found["messages"] == plain.messages
    assert found["parts"] == plain.parts
    assert found["diffs"] == plain.diffs
    assert found["models"] == plain.models
    assert found["metadata"]["syncCount"] == plain.sync_count
