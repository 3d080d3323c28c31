"""The URLs that name a bucket, and how to reach it."""

import pytest

from rpcshare.storage.s3_location import S3Location


def test_a_bucket_alone_is_enough() -> None:
    assert S3Location.parse("//bucket") == S3Location(bucket="bucket")


@pytest.mark.parametrize(
    ("rest", "prefix"),
    [
        ("//bucket/", ""),
        ("//bucket/shares", "shares/"),
        ("//bucket/team/shares/", "team/shares/"),
        ("//bucket//shares", "shares/"),
        ("//bucket/my%20shares", "my shares/"),
    ],
)
def test_a_prefix_ends_with_one_slash(rest: str, prefix: str) -> None:
    assert S3Location.parse(rest).prefix == prefix


def test_options_follow_a_question_mark() -> None:
    assert S3Location.parse(
        "//bucket/p?endpoint_url=https%3A%2F%2Facc.r2.cloudflarestorage.com&region=auto&path_style=FALSE"
        "&timeout=30&attempt_timeout=2.5&connections=10"
    ) == S3Location(
        bucket="bucket",
        prefix="p/",
        endpoint_url="https://acc.r2.cloudflarestorage.com",
        region="auto",
        path_style=False,
        timeout=30.0,
        attempt_timeout=2.5,
        connections=10,
    )


def test_an_endpoint_need_not_be_percent_encoded() -> None:
    location = S3Location.parse("//bucket?endpoint_url=http://127.0.0.1:9000&path_style=true")
    assert location.endpoint_url == "http://127.0.0.1:9000"
    assert location.path_style is True


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "needs the name of a bucket"),
        ("//", "needs the name of a bucket"),
        ("bucket", "needs the name of a bucket"),
        ("///prefix", "needs the name of a bucket"),
        ("//b!cket/", "needs the name of a bucket"),
        ("//bucket:9000/", "needs the name of a bucket"),
        ("//bucket/#fragment", "needs the name of a bucket"),
        ("//bucket/caf%C3%A9", "prefix"),
        ("//bucket/" + "p" * 300, "prefix"),
        ("//bucket?region", "OPTION=VALUE"),
        ("//bucket?region=", "region .* must not be empty"),
        ("//bucket?region=a&region=b", "at most once"),
        ("//bucket?colour=red", "these options.*: endpoint_url, region"),
        ("//bucket?endpoint_url=minio:9000", "endpoint_url .* must be an http"),
        ("//bucket?endpoint_url=ftp://minio", "endpoint_url .* must be an http"),
        ("//bucket?path_style=1", "path_style .* must be true or false"),
        ("//bucket?timeout=0", "timeout .* number of seconds"),
        ("//bucket?timeout=soon", "timeout .* number of seconds"),
        ("//bucket?timeout=nan", "timeout .* number of seconds"),
        ("//bucket?connections=0", "connections .* whole number"),
        ("//bucket?connections=1.5", "connections .* whole number"),
    ],
)
def test_other_urls_are_refused_with_what_would_be_right(rest: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S3Location.parse(rest)


@pytest.mark.parametrize(
    "rest",
    [
        "//AKIA123:hunter2@bucket/",
        "//bucket?secret=hunter2",
        "//bucket?hunter2=secret",
        "//bucket?endpoint_url=http://user:hunter2@host",
        "//bucket?endpoint_url=http://host?hunter2",
        "//bucket?timeout=hunter2",
    ],
)
def test_a_refusal_does_not_repeat_what_may_be_a_credential(rest: str) -> None:
    with pytest.raises(ValueError, match="s3://") as refusal:
        S3Location.parse(rest)
    assert "hunter2" not in str(refusal.value)


def test_it_is_shown_by_bucket_and_prefix() -> None:
    assert str(S3Location.parse("//bucket/team/shares?region=eu-central-1")) == "s3://bucket/team/shares"
