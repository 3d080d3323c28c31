"""Why somebody could not sign in."""

from __future__ import annotations

__all__ = ["SignInError"]


class SignInError(Exception):
    """A sign-in that has failed.

    Attributes:
        sentence: what the person is told: nothing of what a provider sent, and nothing secret.
        detail: what the operator's log says besides; empty if the sentence says it all.
        status: of the page, by HTTP.
    """

    def __init__(self, sentence: str, detail: str = "", *, status: int = 403) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.detail = detail
        self.status = status
