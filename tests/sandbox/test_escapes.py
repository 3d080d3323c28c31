"""Attempts to get out of sandboxes of the driver ``local``."""

import pytest

from sandbox.escape_contract import EscapeContract
from sandbox.escapes import ESCAPES

pytestmark = pytest.mark.slow


class TestEscapes(EscapeContract):
    """From bubblewrap."""


def test_the_corpus_has_no_fewer_attempts_than_it_had():
    assert len(ESCAPES) >= 83
    assert len({each.name for each in ESCAPES}) == len(ESCAPES)
