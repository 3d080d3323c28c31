"""Signatures against the examples that AWS gives, and against botocore's own signer."""

import string

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from rpcshare.storage.s3_signature import Keys, Signer

# Amazon S3 API Reference, "Signature calculations for the Authorization header", "Examples".
KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None)
HOST = "examplebucket.s3.amazonaws.com"
TIME = "20130524T000000Z"


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {"range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
    ],
)
def test_the_examples_of_aws(
    method: str, path: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    signed = Signer("s3", "us-east-1").sign(method, path, {"host": HOST, **headers}, body, KEYS, TIME)
    assert signed["authorization"].endswith(f"Signature={signature}")
    assert "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request," in signed["authorization"]


WORDS = st.text(string.ascii_letters + string.digits + '/+="*-', min_size=1, max_size=40)


@settings(deadline=None)  # a busy machine is no fault
@given(
    keys=st.lists(st.builds(Keys, WORDS, WORDS, st.none() | WORDS), min_size=1, max_size=3),
    etags=st.lists(st.none() | WORDS, min_size=1, max_size=3),
    body=st.binary(max_size=100),
)
def test_every_signature_is_botocore_s_whatever_was_signed_before(
    keys: list[Keys], etags: list[str | None], body: bytes
) -> None:
    signer = Signer("s3", "eu-north-1")
    for each in keys:
        for etag in etags:
            conditions = {} if etag is None else {"if-match": etag}
            request = AWSRequest("PUT", "http://store.example:9000/bucket/a/key", conditions, body)
            S3SigV4Auth(ReadOnlyCredentials(*each), "s3", "eu-north-1").add_auth(request)
            theirs = {name.lower(): value for name, value in request.headers.items()}
            ours = signer.sign(
                "PUT",
                "/bucket/a/key",
                {"host": "store.example:9000", **conditions},
                body,
                each,
                theirs["x-amz-date"],
            )
            assert ours == {**theirs, "host": "store.example:9000"}
