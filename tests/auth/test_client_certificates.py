"""Callers by certificate: whom one names, when it counts no more, and lists of those that were revoked."""

import datetime as dt
import logging
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from rpcshare.auth.caller import Scope
from rpcshare.auth.certificate_files import CertificateFileError
from rpcshare.auth.client_certificates import ClientCertificateVerifier, name_in, parse_client_certificate
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.revocation_list import RevocationList
from rpcshare.errors import ErrorCode, ShareError
from support.authorities import DAY, Authority, common_name, now
from support.narrowing import not_none

URI = x509.UniformResourceIdentifier("urn:uuid:1")
EMAIL = x509.RFC822Name("me@example.com")
DNS = x509.DNSName("build.example.com")
OTHER = x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path / "ca")


def head(certificate: x509.Certificate) -> RequestHead:
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return RequestHead(peer_certificate=parse_client_certificate(pem))


async def refusal(verifier: ClientCertificateVerifier, certificate: x509.Certificate) -> str:
    with pytest.raises(ShareError) as caught:
        await verifier.verify(head(certificate))
    assert caught.value.code is ErrorCode.UNAUTHORIZED
    return caught.value.message


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cn", "names", "subject"),
    [
        ("cn", [URI, EMAIL, DNS], "urn:uuid:1"),
        ("cn", [EMAIL, URI, DNS], "me@example.com"),
        ("cn", [DNS, EMAIL, URI], "build.example.com"),
        ("cn", [OTHER, EMAIL], "me@example.com"),
        ("cn", [OTHER], "cn"),
        ("cn", [], "cn"),
        ("", [DNS], "build.example.com"),
        ("Jörg Ω", [], "Jörg Ω"),
    ],
)
async def test_the_subject_is_the_first_uri_address_or_dns_name_else_the_cn(authority, cn, names, subject):
    caller = await ClientCertificateVerifier({Scope.CREATE}).verify(head(authority.issue(cn, *names)))
    assert caller is not None
    assert (caller.subject, caller.scopes) == (subject, {Scope.CREATE})


async def test_a_certificate_without_a_name_is_refused(authority):
    message = await refusal(ClientCertificateVerifier({Scope.CREATE}), authority.issue("", OTHER))
    assert "the name in the client certificate must be 1 to 256" in message


@pytest.mark.parametrize("cn", ["a\nb", " padded", "\u202egnidart"])
async def test_a_certificate_whose_name_cannot_be_one_is_refused(authority, cn):
    await refusal(ClientCertificateVerifier({Scope.CREATE}), authority.issue(cn))


def test_a_certificate_whose_names_cannot_be_read_names_nobody(authority):
    malformed = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x02\x82")
    certificate = (
        Authority._builder(
            common_name("cn"), authority.certificate.subject, authority.key, now() - DAY, now() + DAY
        )
        .add_extension(malformed, critical=False)
        .sign(authority.key, authority.certificate.signature_hash_algorithm)
    )
    assert name_in(certificate) == ""


async def test_a_certificate_that_only_tls_can_read_is_refused():
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    shown = RequestHead(peer_certificate=parse_client_certificate(pem))
    with pytest.raises(ShareError, match="must be 1 to 256"):
        await ClientCertificateVerifier({Scope.CREATE}).verify(shown)


async def test_the_admins_name_is_for_certificates_that_make_an_admin(authority):
    certificate = authority.issue("admin")
    message = await refusal(ClientCertificateVerifier({Scope.CREATE}), certificate)
    assert "reserved for admins" in message
    caller = not_none(await ClientCertificateVerifier({Scope.ADMIN}).verify(head(certificate)))
    assert caller.subject == "admin"


async def test_a_connection_without_a_certificate_is_nobody_s():
    assert await ClientCertificateVerifier({Scope.CREATE}).verify(RequestHead()) is None


# --- when a certificate counts no more ----------------------------------------------------------


async def test_a_certificate_that_has_expired_since_the_handshake_is_refused(authority):
    certificate = authority.issue("late", expires=now() - dt.timedelta(seconds=5))
    assert "has expired" in await refusal(ClientCertificateVerifier({Scope.CREATE}), certificate)


async def test_a_certificate_has_one_standing_however_often_it_is_shown(authority):
    verifier = ClientCertificateVerifier({Scope.CREATE})
    certificate, other = authority.issue("one"), authority.issue("one")
    callers = [not_none(await verifier.verify(head(shown))) for shown in (certificate, certificate, other)]
    assert callers[0].standing is callers[1].standing
    assert callers[0].standing is not callers[2].standing


async def test_a_certificate_that_was_on_hold_has_a_new_standing(authority):
    verifier = ClientCertificateVerifier({Scope.CREATE})
    certificate = authority.issue("one")
    held = not_none(await verifier.verify(head(certificate)))
    not_none(held.standing).end()
    assert not not_none(await verifier.verify(head(certificate))).has_lost_standing


async def test_a_revoked_certificate_is_refused_and_others_are_not(authority, tmp_path):
    revoked, good = authority.issue("one"), authority.issue("one")
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.revocation_list([revoked]))
    verifier = ClientCertificateVerifier({Scope.CREATE}, RevocationList(path, [authority.certificate]))
    assert "has been revoked" in await refusal(verifier, revoked)
    assert not_none(await verifier.verify(head(good))).subject == "one"


async def test_a_serial_number_is_revoked_for_its_own_ca_alone(authority, tmp_path):
    certificate = authority.issue("one")
    other = Authority(tmp_path / "other", "another CA")
    path = tmp_path / "crl.pem"
    path.write_bytes(other.revocation_list([certificate]) + authority.revocation_list())
    revoked = RevocationList(path, [authority.certificate, other.certificate])
    assert (await ClientCertificateVerifier({Scope.CREATE}, revoked).verify(head(certificate))) is not None


# --- revocation lists ---------------------------------------------------------------------------


def test_a_list_is_read_again_when_its_file_has_changed(authority, tmp_path):
    certificate = authority.issue("one")
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.revocation_list())
    revoked = RevocationList(path, [authority.certificate])
    assert not revoked.read_if_changed()
    path.write_bytes(authority.revocation_list([certificate]))
    assert revoked.read_if_changed()
    assert certificate in revoked


@pytest.mark.parametrize("spoil", ["removed", "cut", "forged"])
def test_a_list_that_is_of_no_use_is_told_of_once_and_the_one_before_it_counts(authority, tmp_path, spoil):
    certificate = authority.issue("one")
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.revocation_list([certificate]))
    revoked = RevocationList(path, [authority.certificate])
    match spoil:
        case "removed":
            path.unlink()
        case "cut":
            os.truncate(path, 50)
        case "forged":
            path.write_bytes(Authority(tmp_path / "forger").revocation_list())
    with pytest.raises(CertificateFileError, match=r"crl\.pem"):
        revoked.read_if_changed()
    assert not revoked.read_if_changed()
    assert certificate in revoked


@pytest.mark.parametrize("name", ["test CA", "another CA"])
def test_a_list_that_the_ca_has_not_signed_is_refused(authority, tmp_path, name):
    path = tmp_path / "crl.pem"
    path.write_bytes(Authority(tmp_path / "other", name).revocation_list())
    with pytest.raises(CertificateFileError, match="none of the CAs has signed"):
        RevocationList(path, [authority.certificate])


def test_a_list_that_is_overdue_counts_and_is_told_of(authority, tmp_path, caplog):
    certificate = authority.issue("one")
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.revocation_list([certificate], due=now() - DAY))
    with caplog.at_level(logging.WARNING):
        revoked = RevocationList(path, [authority.certificate])
    assert "should have been renewed" in caplog.text
    assert certificate in revoked


# --- the whole chain ----------------------------------------------------------------------------


@pytest.fixture
def sub_authority(authority, tmp_path) -> Authority:
    """A CA that the first one vouches for."""
    made = Authority(tmp_path / "sub", "sub CA")
    names = common_name("sub CA"), authority.certificate.subject
    builder = Authority._builder(*names, made.key, now() - DAY, now() + DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made.certificate = builder.sign(authority.key, hashes.SHA256())
    return made


def head_of_chain(*chain: x509.Certificate) -> RequestHead:
    pems = [each.public_bytes(serialization.Encoding.PEM).decode() for each in chain]
    return RequestHead(peer_certificate=parse_client_certificate(*pems))


def verifier_of(tmp_path, authority, *lists: bytes) -> ClientCertificateVerifier:
    (tmp_path / "crl.pem").write_bytes(b"".join(lists))
    revoked = RevocationList(tmp_path / "crl.pem", [authority.certificate])
    return ClientCertificateVerifier({Scope.CREATE}, revoked)


async def test_what_a_revoked_ca_between_has_issued_is_refused(authority, sub_authority, tmp_path):
    leaf, direct = sub_authority.issue("leaf"), authority.issue("direct")
    verifier = verifier_of(tmp_path, authority, authority.revocation_list([sub_authority.certificate]))
    shown = head_of_chain(leaf, sub_authority.certificate, authority.certificate)
    with pytest.raises(ShareError, match="a CA of the client certificate has been revoked"):
        await verifier.verify(shown)
    assert await verifier.verify(head_of_chain(direct, authority.certificate))


async def test_a_list_of_a_ca_between_counts_once_a_client_has_shown_the_ca(
    authority, sub_authority, tmp_path, caplog
):
    leaf, other = sub_authority.issue("leaf"), sub_authority.issue("other")
    lists = (sub_authority.revocation_list([leaf]), authority.revocation_list())
    verifier = verifier_of(tmp_path, authority, *lists)
    assert "that no known CA has signed" in caplog.text
    chain = (sub_authority.certificate, authority.certificate)
    assert await verifier.verify(head_of_chain(other, *chain))
    with pytest.raises(ShareError, match="the client certificate has been revoked"):
        await verifier.verify(head_of_chain(leaf, *chain))


async def test_a_foreign_list_does_not_void_the_others(authority, tmp_path):
    certificate = authority.issue("one")
    foreign = Authority(tmp_path / "foreign", "test CA").revocation_list()
    own = authority.revocation_list([certificate])
    for lists in ([foreign, own], [own, foreign]):
        assert "has been revoked" in await refusal(verifier_of(tmp_path, authority, *lists), certificate)


async def test_a_session_that_is_resumed_is_checked_by_the_cas_that_are_known(
    authority, sub_authority, tmp_path
):
    leaf = sub_authority.issue("leaf")
    verifier = verifier_of(tmp_path, authority, authority.revocation_list())
    with pytest.raises(ShareError, match="connect anew"):
        await verifier.verify(head(leaf))
    assert await verifier.verify(head_of_chain(leaf, sub_authority.certificate, authority.certificate))
    assert await verifier.verify(head(leaf))
    (tmp_path / "crl.pem").write_bytes(authority.revocation_list([sub_authority.certificate]))
    assert verifier._revoked is not None
    verifier._revoked.read_if_changed()
    with pytest.raises(ShareError, match="a CA of the client certificate has been revoked"):
        await verifier.verify(head(leaf))


async def test_a_certificate_ends_with_the_ca_between(authority, tmp_path):
    sub = Authority(tmp_path / "sub", "sub CA")
    expired = now() - dt.timedelta(seconds=5)
    names = common_name("sub CA"), authority.certificate.subject
    ca = Authority._builder(*names, sub.key, now() - DAY, expired).sign(authority.key, hashes.SHA256())
    with pytest.raises(ShareError, match="has expired"):
        await ClientCertificateVerifier({Scope.CREATE}).verify(head_of_chain(sub.issue("leaf"), ca))


@pytest.mark.parametrize(
    "issuer",
    ["TEST  ca", "test CA ", "\uff54\uff45\uff53\uff54 CA", ("test CA", _ASN1Type.PrintableString)],
    ids=str,
)
async def test_a_list_is_its_cas_however_the_name_is_written(authority, tmp_path, issuer):
    """RFC 5280, section 7.1."""
    text, *kind = (issuer,) if isinstance(issuer, str) else issuer
    certificate = authority.issue("one")
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, *kind)]))
        .last_update(now())
        .next_update(now() + DAY)
        .add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.serial_number)
            .revocation_date(now())
            .build()
        )
        .sign(authority.key, hashes.SHA256())
    )
    verifier = verifier_of(tmp_path, authority, crl.public_bytes(serialization.Encoding.PEM))
    assert "has been revoked" in await refusal(verifier, certificate)


def numbered_list(
    authority: Authority, number: int | None, age: dt.timedelta, *revoked: x509.Certificate
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now() - age)
        .next_update(now() + DAY)
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now()).build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("before", "after", "is_taken"),
    [
        ((None, DAY), (None, 2 * DAY), False),
        ((None, 2 * DAY), (None, DAY), True),
        ((7, DAY), (6, DAY / 2), False),
        ((7, DAY), (8, DAY), True),
        ((7, DAY), (8, 2 * DAY), True),
    ],
)
def test_a_list_that_is_older_than_the_one_before_is_not_taken(
    authority, tmp_path, caplog, before, after, is_taken
):
    certificate, path = authority.issue("one"), tmp_path / "crl.pem"
    path.write_bytes(numbered_list(authority, *before, certificate))
    revoked = RevocationList(path, [authority.certificate])
    path.write_bytes(numbered_list(authority, *after))
    assert revoked.read_if_changed()
    assert (certificate not in revoked) is is_taken
    assert ("which is older than the one" in caplog.text) is not is_taken


def test_a_ca_without_a_list_is_told_of(authority, tmp_path, caplog):
    other = Authority(tmp_path / "other", "another CA")
    (tmp_path / "crl.pem").write_bytes(authority.revocation_list())
    revoked = RevocationList(tmp_path / "crl.pem", [authority.certificate, other.certificate])
    assert revoked.unchecked == ["CN=another CA"]
    assert "no revocation list of the CA 'CN=another CA'" in caplog.text


# --- lists beside each other (RFC 5280, sections 5.2.4 and 5.2.5) -----------------------------------


def point(name: str = "", *, users: bool = False, cas: bool = False, indirect: bool = False):
    """Return what says of which certificates a list is."""
    place = [x509.UniformResourceIdentifier(name)] if name else None
    return x509.IssuingDistributionPoint(place, None, users, cas, None, indirect, False)


def partial_list(authority: Authority, extension, *revoked: x509.Certificate, number=2, entry=None) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now() - DAY / 2)
        .next_update(now() + DAY)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(extension, critical=True)
    )
    for certificate in revoked:
        made = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        made = made.revocation_date(now())
        if entry is not None:
            made = made.add_extension(entry, critical=isinstance(entry, x509.CertificateIssuer))
        builder = builder.add_revoked_certificate(made.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, x509.DeltaCRLIndicator(1)),
        (None, point(cas=True)),
        (point(users=True), point(cas=True)),
        (point("http://crl.example/1"), point("http://crl.example/2")),
    ],
    ids=["changes", "whole and part", "users and CAs", "two parts"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["in one file", "one after the other"])
def test_lists_of_different_parts_count_beside_each_other(authority, tmp_path, one, other, at_once):
    first, second = authority.issue("first"), authority.issue("second")
    whole = numbered_list(authority, 1, DAY, first)
    lists = [whole if one is None else partial_list(authority, one, first, number=1)]
    lists.append(partial_list(authority, other, second))
    path = tmp_path / "crl.pem"
    path.write_bytes(b"".join(lists) if at_once else lists[0])
    revoked = RevocationList(path, [authority.certificate])
    if not at_once:
        path.write_bytes(lists[1])
        assert revoked.read_if_changed()
    assert first in revoked
    assert second in revoked


def test_a_list_of_changes_alone_is_no_list_of_the_ca(authority, tmp_path):
    (tmp_path / "crl.pem").write_bytes(partial_list(authority, x509.DeltaCRLIndicator(1)))
    assert RevocationList(tmp_path / "crl.pem", [authority.certificate]).unchecked == ["CN=test CA"]


def test_what_is_taken_off_a_list_is_good_with_the_next_whole_list(authority, tmp_path):
    certificate, path = authority.issue("one"), tmp_path / "crl.pem"
    off = x509.CRLReason(x509.ReasonFlags.remove_from_crl)
    changes = partial_list(authority, x509.DeltaCRLIndicator(1), certificate, entry=off)
    path.write_bytes(numbered_list(authority, 1, DAY, certificate) + changes)
    revoked = RevocationList(path, [authority.certificate])
    assert certificate in revoked
    path.write_bytes(numbered_list(authority, 3, DAY / 4))
    assert revoked.read_if_changed()
    assert certificate not in revoked


def test_changes_from_before_a_whole_list_count_no_more(authority, tmp_path):
    certificate, path = authority.issue("one"), tmp_path / "crl.pem"
    changes = partial_list(authority, x509.DeltaCRLIndicator(1), certificate)
    path.write_bytes(numbered_list(authority, 1, DAY) + changes)
    revoked = RevocationList(path, [authority.certificate])
    assert certificate in revoked
    path.write_bytes(numbered_list(authority, 3, DAY / 4))
    assert revoked.read_if_changed()
    assert certificate not in revoked


def test_an_entry_for_another_ca_s_certificate_revokes_nothing_and_is_told_of(authority, tmp_path, caplog):
    certificate = authority.issue("one")
    other = x509.CertificateIssuer([x509.DirectoryName(common_name("another CA"))])
    (tmp_path / "crl.pem").write_bytes(
        partial_list(authority, point(indirect=True), certificate, entry=other)
    )
    assert certificate not in RevocationList(tmp_path / "crl.pem", [authority.certificate])
    assert "indirect revocation list" in caplog.text
