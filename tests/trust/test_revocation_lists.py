"""Revocation lists of every kind that CAs publish, at a real server over TLS."""

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from support.authorities import DAY, Authority, client_context, common_name, now
from support.running_server import RunningServer

pytestmark = pytest.mark.slow

PEM = serialization.Encoding.PEM


class Chain(NamedTuple):
    """A CA, one that it vouches for, and a client of each."""

    folder: Path
    root: Authority
    sub: Authority
    leaf: x509.Certificate
    direct: x509.Certificate

    @classmethod
    def made(cls, folder: Path) -> "Chain":
        root, sub = Authority(folder / "root", "root CA"), Authority(folder / "sub", "sub CA")
        names = common_name("sub CA"), root.certificate.subject
        builder = Authority._builder(*names, sub.key, now() - DAY, now() + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key())
        signed = builder.add_extension(by, critical=False).sign(root.key, hashes.SHA256())
        sub.certificate = signed
        leaf = sub.issue("leaf")
        with sub.pem(leaf).open("ab") as file:
            file.write(signed.public_bytes(PEM))
        return cls(folder, root, sub, leaf, root.issue("direct"))

    def answers(self, server: RunningServer) -> tuple[int, int]:
        """Return what the sub CA's client gets, and the root's."""
        clients = self.sub.pem(self.leaf), self.root.pem(self.direct)
        leaf, direct = (
            httpx.get(f"{server.url}/api/my-sessions", verify=client_context(self.root, shown)).status_code
            for shown in clients
        )
        return leaf, direct


def crl(
    authority: Authority,
    revoked: Iterable[x509.Certificate] = (),
    *extensions: x509.ExtensionType,
    number: int = 1,
    issuer: x509.Name | None = None,
) -> bytes:
    issuer = issuer or authority.certificate.subject
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer)
    builder = builder.last_update(now() - DAY + dt.timedelta(minutes=number)).next_update(now() + DAY)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now() - DAY).build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(PEM)


def part_of_a_list(*, cas: bool = False, name: str = "") -> x509.IssuingDistributionPoint:
    """Say that a list is of certificates of CAs, or of users, or of those that name a place."""
    place = [x509.UniformResourceIdentifier(name)] if name else None
    return x509.IssuingDistributionPoint(place, None, not cas and not name, cas, None, False, False)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain.made(tmp_path)


Serve = Callable[[bytes], RunningServer]


@pytest.fixture
def serve(chain: Chain, tmp_path: Path) -> Iterator[Serve]:
    """Return what starts a server that has a list."""
    servers = []

    def start(first: bytes) -> RunningServer:
        (tmp_path / "crl.pem").write_bytes(first)
        tls = chain.root.issue_to_server()
        options = [f"--tls-cert={tls}", f"--tls-key={tls}"]
        options += [f"--client-ca={chain.root.path}", f"--client-crl={tmp_path}/crl.pem"]
        servers.append(RunningServer(tmp_path / "data", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def becomes(chain: Chain, server: RunningServer, expected: tuple[int, int]) -> tuple[int, int]:
    """Return what clients get, at the latest after 15 s, within which lists are read."""
    deadline = time.monotonic() + 15
    while (found := chain.answers(server)) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


REVOKED: dict[str, tuple[Callable[[Chain], list[bytes]], tuple[int, int]]] = {
    "a client": (lambda c: [crl(c.root, [c.direct])], (200, 401)),
    "the CA between": (lambda c: [crl(c.root, [c.sub.certificate])], (401, 200)),
    "a client of the CA between, in a list of its own": (
        lambda c: [crl(c.sub, [c.leaf]), crl(c.root, [c.direct])],
        (401, 401),
    ),
    "a client, the issuer's name in another type of string": (
        lambda c: [
            crl(
                c.root,
                [c.direct],
                issuer=x509.Name(
                    [x509.NameAttribute(NameOID.COMMON_NAME, "root CA", _ASN1Type.PrintableString)]
                ),
            )
        ],
        (200, 401),
    ),
    "a client, beside a list of what CAs were revoked": (
        lambda c: [crl(c.root, [c.direct], part_of_a_list()), crl(c.root, [], part_of_a_list(cas=True))],
        (200, 401),
    ),
    "a client, in one of two parts of a list": (
        lambda c: [
            crl(c.root, [c.direct], part_of_a_list(name="http://crl.example/1")),
            crl(c.root, [], part_of_a_list(name="http://crl.example/2")),
        ],
        (200, 401),
    ),
    "a client, before a list of the changes since": (
        lambda c: [crl(c.root, [c.direct]), crl(c.root, [], x509.DeltaCRLIndicator(1), number=2)],
        (200, 401),
    ),
    "a client, since the list, in a list of the changes": (
        lambda c: [crl(c.root), crl(c.root, [c.direct], x509.DeltaCRLIndicator(1), number=2)],
        (200, 401),
    ),
}


@pytest.mark.parametrize("what", REVOKED)
def test_what_was_revoked_before_the_start_is_refused(chain: Chain, serve: Serve, what: str) -> None:
    lists, expected = REVOKED[what]
    server = serve(b"".join(lists(chain)))
    # A list of the CA between counts once a client has shown it.
    assert becomes(chain, server, expected) == expected


def test_what_was_revoked_is_refused_when_the_file_is_replaced(chain: Chain, serve: Serve) -> None:
    server = serve(crl(chain.root, number=1))
    assert chain.answers(server) == (200, 200)
    (chain.folder / "crl.pem").write_bytes(crl(chain.root, [chain.sub.certificate], number=2))
    assert becomes(chain, server, (401, 200)) == (401, 200)


def test_a_list_of_changes_in_place_of_the_whole_list_brings_nothing_back(chain: Chain, serve: Serve) -> None:
    server = serve(crl(chain.root, [chain.sub.certificate], number=1))
    changes = crl(chain.root, [chain.direct], x509.DeltaCRLIndicator(1), number=2)
    (chain.folder / "crl.pem").write_bytes(changes)
    assert becomes(chain, server, (401, 401)) == (401, 401)
