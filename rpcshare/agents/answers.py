"""What people answer to approvals and questions, as it is kept and as opencode takes it."""

from __future__ import annotations

from rpcshare.agents.agent import AgentRequest, JSONObject, RequestKind
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["parse_answer"]

_REPLIES = ("once", "always", "reject")
_LONGEST = 10_000  # characters of a note, and of an answer


def parse_answer(request: AgentRequest, answer: object, note: object = None) -> JSONObject:
    """Return an answer as it is kept: ``{reply, note?}``, ``{answers}`` or ``{rejected: true}``.

    Args:
        request: what was asked.
        answer: to an approval ``"once"``, ``"always"`` or ``"reject"``; to questions a list with a list of
        labels, or
            of words of one's own, for each, or ``"reject"``. Of one question its label alone will do.
        note: what the agent is told of a rejection.

    Raises:
        ShareError: INVALID_ARGUMENT: names what is wrong.
    """
    if note is not None and not (isinstance(note, str) and len(note) <= _LONGEST):
        raise _wrong(f"note: must be a string of at most {_LONGEST:,} characters")
    if request.kind is RequestKind.APPROVAL:
        if answer not in _REPLIES:
            raise _wrong('answer: must be "once", "always" or "reject"')
        return {"reply": answer, **({"note": note} if note else {})}
    if answer == "reject":
        return {"rejected": True, **({"note": note} if note else {})}
    questions = request.asked.get("questions", [])
    count = len(questions) if isinstance(questions, list) else 0
    answers = [[answer]] if isinstance(answer, str) and count == 1 else answer
    if not isinstance(answers, list) or len(answers) != count:
        raise _wrong(f"answer: must be a list with a list of labels for each of {count} questions")
    found = []
    for each in answers:
        labels = [each] if isinstance(each, str) else each
        if not isinstance(labels, list) or not all(
            isinstance(label, str) and len(label) <= _LONGEST for label in labels
        ):
            raise _wrong("answer: labels must be strings")
        found.append(labels)
    return {"answers": found}


def _wrong(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
