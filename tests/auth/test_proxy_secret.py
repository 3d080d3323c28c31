"""The secret that a trusted proxy shows beside its address."""

import pytest

from rpcshare.auth.proxy_secret import ProxySecret, fault_of_proxy_secret, read_proxy_secret

SECRET = "a-secret-of-some-length"
OTHERS = [(b"host", b"share.example"), (b"x-auth-user", b"alice")]


@pytest.mark.parametrize(
    ("shown", "is_right"),
    [
        ([SECRET], True),
        ([f" {SECRET} "], True),
        ([], False),
        ([""], False),
        ([SECRET[:-1]], False),
        ([SECRET + "x"], False),
        ([SECRET.upper()], False),
        # Of two, one may be the client's.
        ([SECRET, SECRET], False),
        (["guess", SECRET], False),
        ([f"guess, {SECRET}"], False),
        (["\xff"], False),
    ],
)
@pytest.mark.parametrize("name", [b"x-proxy-secret", b"X-Proxy-Secret"])
def test_the_secret_is_shown_once_and_right_and_goes_no_further(name, shown, is_right):
    headers = [*OTHERS, *((name, value.encode("latin-1")) for value in shown)]
    assert ProxySecret(SECRET, "X-Proxy-Secret").take(headers) == (OTHERS, is_right)


def test_no_form_of_it_has_the_secret():
    assert SECRET not in repr(ProxySecret(SECRET, "X-Proxy-Secret"))


@pytest.mark.parametrize("bad", ["", "short", "x" * 15, "x" * 1025, "with a space in it", "\u00e4" * 20])
def test_what_could_be_guessed_or_not_be_sent_is_no_secret(bad):
    assert fault_of_proxy_secret(bad) is not None


def test_a_file_has_the_secret_and_a_line_break(tmp_path):
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert read_proxy_secret(tmp_path / "secret") == SECRET


def test_a_file_that_holds_none_is_named_and_not_quoted(tmp_path):
    (tmp_path / "secret").write_text("too-short\n")
    with pytest.raises(ValueError, match="secret") as refused:
        read_proxy_secret(tmp_path / "secret")
    assert "too-short" not in str(refused.value)
