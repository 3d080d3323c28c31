"""The members of a JSON body: those that are misspelt, and those that nobody knows."""

import pytest

from rpcshare import ErrorCode, ShareError
from rpcshare.server.json_body import JsonBody

OPTIONS = ("visibility", "expiresIn", "password")


@pytest.mark.parametrize(
    "name",
    [
        "Visibility",
        "visibilty",
        "visibilitty",
        "vsiibility",
        "expires_in",
        "expires-in",
        "expiresin",
        "pasword",
    ],
)
def test_a_misspelt_option_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ShareError, match=f"^{name}: ") as refused:
        JsonBody({"sessionID": "s", name: "x"}).check_spelling(*OPTIONS)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "name", [*OPTIONS, "sessionID", "data", "date", "title", "pass", "expires", "", "_" * 999]
)
def test_any_other_member_is_none_of_its_business(name: str) -> None:
    JsonBody({name: "x"}).check_spelling(*OPTIONS)
