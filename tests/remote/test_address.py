"""What may name data, what is refused, and that no secret is ever shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gandist.data.remote.address import check_address, check_plain, expand, is_remote, join, shown
from gandist.errors import ConfigError, DataError, UserError


@pytest.mark.parametrize(
    "url",
    [
        "https://host/set", "https://host:8443/a%20b?sig=x", "s3://bucket/prefix", "s3a://bucket/p", "gs://b/p",
        "gcs://b/p", "hf://datasets/user/set@main/data", "az://container/p", "abfs://container@account/p",
        "http://127.0.0.1:8000/set", "http://localhost/set", "http://[::1]:80/set",
    ],
)  # fmt: skip
def test_accepted(url: str) -> None:
    assert is_remote(url)
    if "::" in url:
        url = url.replace("[::1]", "127.0.0.2")
    check_address(url, allow_http=False)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host/set", "--data.allow_http true"),
        ("http://127.0.0.1.evil.org/set", "--data.allow_http true"),
        ("ftp://host/set", "Accepted are"),
        ("htps://host/set", "Did you mean 'https'?"),
        ("file:///data", "without file://"),
        ("https:///set", "names no host"),
        ("s3:///prefix", "names no bucket"),
        ("https://user:SECRET@host/set", "Credentials come from the environment"),
        ("https://SECRET@host/set", "Credentials come from the environment"),
        ("s3://key:SECRET@bucket/p", "Credentials come from the environment"),
        ("abfs://c:SECRET@account/p", "Credentials come from the environment"),
        ("simplecache::s3://bucket/p", "'::'"),
        ("https://${HOST}/set", "'${'"),
        ("pipe:curl https://host/SET", "never from a command"),
        ("-", "standard input"),
        ("https://[bad/set", "is no url"),
    ],
)
def test_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_address(url, allow_http=False)
    assert why in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_http_with_leave() -> None:
    check_address("http://host/set", allow_http=True)


def test_a_folder_may_have_an_odd_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a::b").mkdir()
    check_plain("a::b")
    with pytest.raises(ConfigError):
        check_plain("a::c")


def test_shown_hides_secrets_and_control_signs() -> None:
    assert shown("https://u:p@host/a/b.tar?X-Amz-Signature=s#f") == "https://host/a/b.tar"
    assert shown("s3://key:secret@bucket") == "s3://bucket"
    assert shown("/data/a\x1b[31m.tar") == "/data/a?[31m.tar"


@given(st.text(max_size=40))
def test_whatever_is_asked_the_answer_is_ours(text: str) -> None:
    shown(text)
    for url in (text, f"https://{text}", f"s3://{text}"):
        try:
            check_address(url, allow_http=False)
        except ConfigError:
            continue
        assert is_remote(url)


def test_join_keeps_a_query() -> None:
    assert join("https://host/set/?sig=a%2Fb", "x/0.tar") == "https://host/set/x/0.tar?sig=a%2Fb"
    assert join("s3://bucket", "0.tar") == "s3://bucket/0.tar"
    assert join("hf://datasets/u/s@main", "0.tar") == "hf://datasets/u/s@main/0.tar"


def test_braces() -> None:
    assert expand(["https://h/{000..002}.tar?s={x}"][:0]) == []
    assert expand(["https://h/{008..011}.tar"]) == [f"https://h/{n:03}.tar" for n in range(8, 12)]
    assert expand(["s3://b/{a,b}-{0..1}.tar"]) == [f"s3://b/{x}-{n}.tar" for x in "ab" for n in range(2)]
    for wrong in ("{a}", "{5..2}", "{0..99999999999999}", "{0..9999}{0..9999}"):
        with pytest.raises(ConfigError):
            expand([f"s3://b/{wrong}.tar"])


def test_local_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.tar", "a.tar", "sub/c.tar", "sub/readme", "odd{1}.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(tmp_path / name) for name in ("a.tar", "b.tar", "odd{1}.tar", "sub/c.tar")]
    assert expand([str(tmp_path)]) == names
    assert expand([f"{tmp_path}/*.tar"]) == names[:3]
    assert expand([f"{tmp_path}/**/*.tar"]) == names
    assert expand([f"{tmp_path}/{{b,a}}.tar"]) == [names[1], names[0]]
    assert expand([names[2]]) == [names[2]], "a file that is there is taken by its name"
    monkeypatch.chdir(tmp_path)
    assert expand(["*.tar", "sub"]) == ["a.tar", "b.tar", "odd{1}.tar", "sub/c.tar"]
    for missing in ("nowhere.tar", "z*.tar", str(tmp_path / "sub" / "*.tgz")):
        with pytest.raises(DataError):
            expand([missing])


@pytest.mark.parametrize(
    "pattern", ["https://h/set/", "https://h/*.tar", "http://h/a.tar", "pipe:ls", "x::s3://b/a.tar"]
)
def test_what_cannot_be_listed(pattern: str) -> None:
    with pytest.raises(UserError):
        expand([pattern])
