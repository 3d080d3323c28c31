"""Who may do what: the table. Each row is a kind of caller, as :mod:`access_matrix.callers` makes them.

``ok``: it is done. Otherwise what is answered: 401 UNAUTHORIZED, 403 FORBIDDEN, 404 SHARE_NOT_FOUND,
410 SHARE_GONE, and ``secret``, INVALID_SECRET, which is a 403 over HTTP.

The shares are Alice's but for ``other's``, which is Mallory's and private. ``secret`` among the callers is
somebody who has the share's secret to show, and only that unless another name stands before it. The last
rows are of a server with anonymous-create.
"""

from rpcshare.errors import ErrorCode

__all__ = ["ANSWERS", "CALLERS", "SHARES", "expected"]

ANSWERS: dict[str, ErrorCode | None] = {
    "ok": None,
    "401": ErrorCode.UNAUTHORIZED,
    "403": ErrorCode.FORBIDDEN,
    "404": ErrorCode.SHARE_NOT_FOUND,
    "410": ErrorCode.SHARE_GONE,
    "secret": ErrorCode.INVALID_SECRET,
}

SHARES = ("link", "password", "private", "other's", "expired", "missing")

# What asks for no share. ``connect`` is to have an RPC session: whoever may not has none of its calls.
_WITHOUT_A_SHARE = """
caller                   connect create list-own keys vault

nobody                   401     401    401      401  401
wrong token              401     401    401      401  401
expired key              401     401    401      401  401
revoked key              401     401    401      401  401
expired signed token     401     401    401      401  401
untrusted proxy          401     401    401      401  401
secret                   401     401    401      401  401
wrong secret             401     401    401      401  401
password                 401     401    401      401  401
wrong password           401     401    401      401  401
view token               ok      401    401      401  401
create key               ok      ok     ok       403  ok
read key                 ok      403    ok       403  403
certificate              ok      ok     ok       403  ok
revoked certificate      401     401    401      401  401
trusted proxy            ok      ok     ok       403  ok
other owner              ok      ok     ok       403  ok
other owner, secret      ok      ok     ok       403  ok
owner                    ok      ok     ok       403  ok
owner, wrong secret      ok      ok     ok       403  ok
owner, path key          ok      ok     ok       403  ok
owner, signed token      ok      ok     ok       403  ok
owner, signed in         ok      ok     ok       403  ok
owner, read key          ok      403    ok       403  403
admin                    ok      ok     ok       ok   ok

open: nobody             ok      ok     401      401  401
open: wrong token        401     401    401      401  401
open: secret             ok      ok     401      401  401
open: password           ok      ok     401      401  401
open: read key           ok      403    ok       403  403
open: owner              ok      ok     ok       403  ok
"""

# To read a share, in whole or in part, now or as it goes on. A secret is no right to read.
_READ = """
caller                   link password private other's expired missing

nobody                   ok   401      401     401     410     404
wrong token              401  401      401     401     401     401
expired key              401  401      401     401     401     401
revoked key              401  401      401     401     401     401
expired signed token     401  401      401     401     401     401
untrusted proxy          ok   401      401     401     410     404
secret                   ok   401      401     401     410     404
wrong secret             ok   401      401     401     410     404
password                 ok   ok       401     401     410     404
wrong password           ok   401      401     401     410     404
view token               ok   401      ok      401     410     404
create key               ok   403      403     403     410     404
read key                 ok   ok       ok      ok      410     404
certificate              ok   403      403     403     410     404
revoked certificate      401  401      401     401     401     401
trusted proxy            ok   ok       ok      ok      410     404
other owner              ok   403      403     ok      410     404
other owner, secret      ok   403      403     ok      410     404
owner                    ok   ok       ok      403     410     404
owner, wrong secret      ok   ok       ok      403     410     404
owner, path key          ok   ok       ok      403     410     404
owner, signed token      ok   ok       ok      403     410     404
owner, signed in         ok   ok       ok      403     410     404
owner, read key          ok   ok       ok      ok      410     404
admin                    ok   ok       ok      ok      410     404

open: nobody             ok   401      401     401     410     404
open: wrong token        401  401      401     401     401     401
open: secret             ok   401      401     401     410     404
open: password           ok   ok       401     401     410     404
open: read key           ok   ok       ok      ok      410     404
open: owner              ok   ok       ok      403     410     404
"""

# To sync, delete or change a share, to make view tokens of it, and to hold it as a capability.
_WRITE = """
caller                   link    password private other's expired missing

nobody                   403     403      403     403     410     404
wrong token              401     401      401     401     401     401
expired key              401     401      401     401     401     401
revoked key              401     401      401     401     401     401
expired signed token     401     401      401     401     401     401
untrusted proxy          403     403      403     403     410     404
secret                   ok      ok       ok      ok      410     404
wrong secret             secret  secret   secret  secret  410     404
password                 403     403      403     403     410     404
wrong password           403     403      403     403     410     404
view token               403     403      403     403     410     404
create key               403     403      403     403     410     404
read key                 403     403      403     403     410     404
certificate              403     403      403     403     410     404
revoked certificate      401     401      401     401     401     401
trusted proxy            403     403      403     403     410     404
other owner              403     403      403     ok      410     404
other owner, secret      ok      ok       ok      ok      410     404
owner                    ok      ok       ok      403     410     404
owner, wrong secret      secret  secret   secret  secret  410     404
owner, path key          ok      ok       ok      403     410     404
owner, signed token      ok      ok       ok      403     410     404
owner, signed in         ok      ok       ok      403     410     404
owner, read key          403     403      403     403     410     404
admin                    ok      ok       ok      ok      410     404

open: nobody             403     403      403     403     410     404
open: wrong token        401     401      401     401     401     401
open: secret             ok      ok       ok      ok      410     404
open: password           403     403      403     403     410     404
open: read key           403     403      403     403     410     404
open: owner              ok      ok       ok      403     410     404
"""

# To get a view token for the share's password, which everybody here knows.
_UNLOCK = """
caller                   link password private other's expired missing

nobody                   403  ok       401     401     410     404
wrong token              401  401      401     401     401     401
expired key              401  401      401     401     401     401
revoked key              401  401      401     401     401     401
expired signed token     401  401      401     401     401     401
untrusted proxy          403  ok       401     401     410     404
secret                   403  ok       401     401     410     404
wrong secret             403  ok       401     401     410     404
password                 403  ok       401     401     410     404
wrong password           403  ok       401     401     410     404
view token               403  ok       401     401     410     404
create key               403  ok       403     403     410     404
read key                 403  ok       403     403     410     404
certificate              403  ok       403     403     410     404
revoked certificate      401  401      401     401     401     401
trusted proxy            403  ok       403     403     410     404
other owner              403  ok       403     403     410     404
other owner, secret      403  ok       403     403     410     404
owner                    403  ok       403     403     410     404
owner, wrong secret      403  ok       403     403     410     404
owner, path key          403  ok       403     403     410     404
owner, signed token      403  ok       403     403     410     404
owner, signed in         403  ok       403     403     410     404
owner, read key          403  ok       403     403     410     404
admin                    403  ok       403     403     410     404

open: nobody             403  ok       401     401     410     404
open: wrong token        401  401      401     401     401     401
open: secret             403  ok       401     401     410     404
open: password           403  ok       401     401     410     404
open: read key           403  ok       403     403     410     404
open: owner              403  ok       403     403     410     404
"""


def _parsed(table: str) -> dict[str, dict[str, str]]:
    heading, *lines = [line for line in table.splitlines() if line]
    at = heading.index(heading.split()[1])
    columns = heading[at:].split()
    rows = {line[:at].strip(): line[at:].split() for line in lines}
    assert len(rows) == len(lines)
    assert all(len(cells) == len(columns) and set(cells) <= set(ANSWERS) for cells in rows.values())
    return {caller: dict(zip(columns, cells, strict=True)) for caller, cells in rows.items()}


_RIGHTS = _parsed(_WITHOUT_A_SHARE)
_OF_SHARES = {"read": _parsed(_READ), "write": _parsed(_WRITE), "unlock": _parsed(_UNLOCK)}

CALLERS = tuple(_RIGHTS)
assert all(tuple(rows) == CALLERS for rows in _OF_SHARES.values())


def expected(right: str, caller: str, share: str | None) -> str:
    """Return the cell for a right: one of a column of the first table, or ``read``, ``write``, ``unlock``.

    ``nothing`` is what no right is needed for, nor looked at; ``users`` is refused to everybody where nobody
    signs in with a provider (tests/people has the rest); ``write by name``, as pages have it, asks those
    to sign in who have no name before it looks at what they may.
    """
    if right == "nothing":
        return "ok"
    if right == "users":
        return "403"
    if right == "workspaces":
        right = "vault"  # both want a name and the scope create
    if right == "write by name":
        return "401" if _RIGHTS[caller]["list-own"] == "401" else _OF_SHARES["write"][caller][share or ""]
    return _RIGHTS[caller][right] if share is None else _OF_SHARES[right][caller][share]
