"""Which settings about signed tokens fit together."""

from pathlib import Path

import pytest

from rpcshare.auth.signing_key import OWN_ISSUER
from rpcshare.config import ConfigError, load_settings
from rpcshare.server.token_issuers import token_issuers

JWKS = {"jwks_url": "https://id.example/jwks"}
ISSUER = {"jwt_issuer": "https://id.example", "jwt_audience": "https://share.example"}

NOT_TOGETHER = {
    "an issuer without keys": (
        ISSUER,
        "--jwt-issuer: needs exactly one of --jwks-url, --jwt-key, --jwt-secret",
    ),
    "keys without an issuer": ({**JWKS, "jwt_audience": "a"}, "--jwks-url: needs --jwt-issuer, too"),
    "keys without an audience": ({**JWKS, "jwt_issuer": "a"}, "--jwks-url: needs --jwt-audience, too"),
    "keys from two places": ({**JWKS, **ISSUER, "jwt_key": "b"}, "--jwks-url: needs exactly one of"),
    "roles without a map": ({**JWKS, **ISSUER, "jwt_role_claim": "r"}, "each needs the other"),
    "a map without roles": ({**JWKS, **ISSUER, "jwt_role_map": "r=read"}, "each needs the other"),
    "roles alone": (
        {"jwt_role_claim": "r", "jwt_role_map": "r=read"},
        "--jwt-role-claim: needs exactly one of",
    ),
    "this server's own name": ({**JWKS, **ISSUER, "jwt_issuer": OWN_ISSUER}, "this server's own tokens"),
    "a file that is not there": ({**ISSUER, "jwt_key": "/missing"}, "cannot read /missing: No such file"),
    "a file of something else": ({**ISSUER, "jwt_key": __file__}, "is neither PEM nor JSON"),
}


@pytest.mark.parametrize(("given", "why"), NOT_TOGETHER.values(), ids=NOT_TOGETHER.keys())
async def test_settings_that_do_not_fit_together_are_named(tmp_path: Path, given, why) -> None:
    settings = load_settings({**given, "data_dir": tmp_path})
    with pytest.raises(ConfigError) as caught:
        async with token_issuers(settings):
            pass
    assert why in str(caught.value)


async def test_without_settings_a_server_believes_itself_alone(tmp_path: Path) -> None:
    async with token_issuers(load_settings({"data_dir": tmp_path})) as issuers:
        assert [issuer.name for issuer in issuers] == [OWN_ISSUER]


async def test_a_role_may_stand_for_several_scopes(tmp_path: Path) -> None:
    roles = {"jwt_role_claim": "roles", "jwt_role_map": "boss=create,boss=read,auditor=read"}
    async with token_issuers(load_settings({**JWKS, **ISSUER, **roles, "data_dir": tmp_path})) as issuers:
        assert issuers[1].role_scopes == {"boss": {"create", "read"}, "auditor": {"read"}}
