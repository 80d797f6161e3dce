"""Files of a web server under faults: what is sent in the end, how often it is asked, and what is refused."""

import hashlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from fault_server import BODY, FINE, Fault, FaultServer, Handler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gandist.data.remote import https, retry
from gandist.data.remote.cache import Cache
from gandist.errors import DataError, UserError

pytestmark = pytest.mark.usefixtures("_hasty")

SHA256 = hashlib.sha256(BODY).hexdigest()


def content(cache: Cache, url: str, size: int | None = len(BODY), sha256: str | None = SHA256) -> bytes:
    with cache.lease(url, size=size, sha256=sha256) as lease:
        return lease.path.read_bytes()


def test_three_drops_send_every_byte_once(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(after=9_000), Fault(after=1), Fault(after=20_000)]
    assert content(cache, f"{server.url}/x.tar") == BODY
    assert server.sent_bytes == len(BODY)
    ranges = [None, "bytes=9000-", "bytes=9001-", "bytes=29001-"]
    assert server.asked == [("/x.tar", wanted) for wanted in ranges]


def test_the_cache_asks_once(server: FaultServer, cache: Cache) -> None:
    assert content(cache, f"{server.url}/x.tar") == content(cache, f"{server.url}/x.tar") == BODY
    assert len(server.asked) == 1


def test_without_ranges_a_drop_begins_anew(server: FaultServer, cache: Cache) -> None:
    server.ranges = False
    server.faults = [Fault(after=9_000)]
    assert content(cache, f"{server.url}/x.tar") == BODY
    assert server.sent_bytes == 9_000 + len(BODY)


def test_a_silent_server_is_left_and_asked_again(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(after=30_000, stall=True), Fault(after=0, stall=True)]
    assert content(cache, f"{server.url}/x.tar") == BODY
    assert server.sent_bytes == len(BODY)
    assert len(server.asked) == 3


def test_a_trickle_counts_as_silence(server: FaultServer, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt brings a little, and still the count of failures goes on."""
    monkeypatch.setattr(https, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(https, "SLOW_BYTES", 1 << 40)
    monkeypatch.setattr(https, "CHUNK_BYTES", 100)
    with pytest.raises(DataError, match="only 100 bytes came in 0 s"):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) == retry.TRIES_IN_A_ROW


def test_a_missing_file_is_an_error_at_once(server: FaultServer, cache: Cache) -> None:
    with pytest.raises(DataError) as caught:
        content(cache, f"{server.url}/nowhere.tar?signature=SECRET")
    assert str(caught.value) == f"{server.url}/nowhere.tar: there is no such file (404 Not Found)."
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 410, 418])
def test_refusals_are_not_repeated(server: FaultServer, cache: Cache, status: int) -> None:
    server.faults = [Fault(status=status)]
    with pytest.raises(DataError, match=str(status)):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(status=status) for status in (500, 503, 429, 408, 502)]
    assert content(cache, f"{server.url}/x.tar") == BODY
    assert len(server.asked) == 6


def test_attempts_in_a_row_are_bounded(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(status=503)] * 1000
    with pytest.raises(DataError, match=r"503 Service Unavailable.* after 0 of 40000 bytes"):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) == retry.TRIES_IN_A_ROW


def test_attempts_in_all_are_bounded(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(after=1)] * 1000
    with pytest.raises(DataError, match="after 100 of 40000 bytes"):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) == retry.TRIES_IN_ALL


def test_no_progress_beyond_what_was_reached_is_no_progress(server: FaultServer, cache: Cache) -> None:
    """Without ranges every attempt brings bytes again; that alone must not go on for ever."""
    server.ranges = False
    server.faults = [Fault(after=30_000)] * 1000
    with pytest.raises(DataError, match="could not be fetched"):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) == 1 + retry.TRIES_IN_A_ROW - 1


def test_a_server_may_ask_to_wait_but_not_for_ever() -> None:
    assert 7 <= retry.pause_seconds(1, 7.0) <= 7 * 1.5
    assert retry.pause_seconds(1, 1e9) <= retry.LONGEST_ASKED_PAUSE_SECONDS * 1.5
    assert retry.pause_seconds(60, None) <= retry.LONGEST_PAUSE_SECONDS * 1.5
    assert retry.pause_seconds(1, -5.0) < 1


def test_retry_after_is_heeded(server: FaultServer, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []
    monkeypatch.setattr(retry, "pause_seconds", lambda failures, seconds: asked.append(seconds) or 0.0)
    server.faults = [
        Fault(status=503, headers=(("Retry-After", "17"),)),
        Fault(status=429, headers=(("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),)),
        Fault(status=503, headers=(("Retry-After", "soon"),)),
    ]
    assert content(cache, f"{server.url}/x.tar") == BODY
    assert asked[0] == 17
    assert asked[1] is not None
    assert asked[1] < 0
    assert asked[2] is None


@pytest.mark.parametrize("wrong", [BODY + b"x", BODY[:-1], b""])
def test_another_length_than_indexed_is_refused(server: FaultServer, cache: Cache, wrong: bytes) -> None:
    server.files["/x.tar"] = wrong
    with pytest.raises(DataError, match=rf"has {len(wrong)} bytes, the index recorded 40000: the shard changed"):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) == 1
    assert server.sent_bytes <= len(wrong)
    assert not cache.path(f"{server.url}/x.tar").exists()


def test_lengths_are_checked_where_the_server_says_none(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(body=BODY + b"x", unsized=True)]
    with pytest.raises(DataError, match="more than 40000 bytes"):
        content(cache, f"{server.url}/x.tar")
    server.faults = [Fault(body=BODY[:-1], unsized=True), FINE]
    assert content(cache, f"{server.url}/x.tar") == BODY, "the missing byte is asked for"
    server.faults = [Fault(unsized=True)]
    with pytest.raises(DataError, match="does not say how long it is"):
        content(cache, f"{server.url}/x.tar?again", size=None, sha256=None)


def test_a_file_that_changes_while_it_arrives_is_never_mixed(server: FaultServer, cache: Cache) -> None:
    """Without a digest, only the tag tells the versions apart."""
    other = bytes(len(BODY))
    server.faults = [Fault(after=9_000), Fault(body=other), Fault(body=other)]
    assert content(cache, f"{server.url}/x.tar", sha256=None) == other
    server.faults = [Fault(after=9_000), Fault(body=other, heedless=True), Fault(body=other)]
    assert content(cache, f"{server.url}/x.tar?2", sha256=None) == other


def test_a_wrong_digest_is_fetched_once_more_and_then_an_error(server: FaultServer, cache: Cache) -> None:
    wrong = BODY[:-1] + b"!"
    server.faults = [Fault(body=wrong), FINE]
    assert content(cache, f"{server.url}/x.tar") == BODY
    server.faults = [Fault(body=wrong)] * 2
    with pytest.raises(DataError, match=f"arrived twice with the SHA-256 .* the index recorded {SHA256[:16]}"):
        content(cache, f"{server.url}/x.tar?again")
    assert len(server.asked) == 4
    assert not list(cache.folder.glob(".*.part"))


def test_small_files_are_read_and_not_kept(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(after=5)]
    assert cache.read(f"{server.url}/x.tar", 40_000) == BODY
    with pytest.raises(DataError, match="at most 39999 belong there"):
        cache.read(f"{server.url}/x.tar", 39_999)
    server.faults = [Fault(unsized=True)]
    with pytest.raises(DataError, match="more than the 39999 bytes"):
        cache.read(f"{server.url}/x.tar", 39_999)
    assert not cache.folder.exists()


# --- redirects ---------------------------------------------------------------------------------------------


def test_redirects_are_followed_to_what_may_be_read(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(status=302, headers=(("Location", "/x.tar?moved"),))]
    assert content(cache, f"{server.url}/x.tar") == BODY
    for target, complaint in [
        ("http://example.org/x.tar", "allow_http"),
        ("ftp://example.org/x.tar", "ftp://"),
        ("file:///etc/passwd?sig=SECRET", "302 Found"),
    ]:
        server.faults = [Fault(status=302, headers=(("Location", target),))]
        with pytest.raises(UserError, match=complaint) as caught:
            content(cache, f"{server.url}/x.tar?{complaint}")
        assert "SECRET" not in str(caught.value)


def test_a_circle_of_redirects_ends(server: FaultServer, cache: Cache) -> None:
    server.faults = [Fault(status=302, headers=(("Location", f"/x.tar?{n}"),)) for n in range(50)]
    with pytest.raises(DataError, match="302"):
        content(cache, f"{server.url}/x.tar")
    assert len(server.asked) <= 7


@pytest.fixture
def secure(server: FaultServer, tmp_path: Path) -> Iterator[str]:
    """The url of a TLS front of the server, whose certificate is trusted."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler.of(server))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    front.socket = context.wrap_socket(front.socket, server_side=True)
    front.handle_error = lambda *_: None  # a client that refuses the certificate is no news
    thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{front.server_address[1]}"
    front.shutdown()
    front.server_close()
    thread.join()


def test_https_never_leads_to_http(
    server: FaultServer, secure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache", None, allow_http=True)
    https._opener.cache_clear()
    with pytest.raises(DataError, match="certificate is not valid"):
        content(cache, f"{secure}/x.tar")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    https._opener.cache_clear()
    assert content(cache, f"{secure}/x.tar") == BODY
    server.faults = [Fault(status=302, headers=(("Location", f"{server.url}/x.tar?sig=SECRET"),))]
    with pytest.raises(DataError, match=rf"leads to {server.url}/x.tar, which is not https; not followed"):
        content(cache, f"{secure}/x.tar?2")
    https._opener.cache_clear()


# --- whatever happens --------------------------------------------------------------------------------------

PASSING = st.one_of(
    st.builds(Fault, after=st.integers(0, len(BODY)), whole=st.booleans()),
    st.builds(Fault, status=st.sampled_from([408, 425, 429, 500, 502, 503, 504])),
    st.builds(Fault, whole=st.just(True)),
    st.builds(Fault, tag=st.just('"other"'), after=st.integers(0, len(BODY))),
    st.just(FINE),
)
LASTING = st.one_of(
    st.builds(Fault, status=st.sampled_from([400, 401, 403, 404, 410])),
    st.builds(Fault, body=st.sampled_from([BODY[:-1], BODY + b"x", b"", bytes(len(BODY)), BODY[:-1] + b"!"])),
    st.builds(Fault, after=st.integers(0, len(BODY)), unsized=st.just(True)),
    st.builds(Fault, after=st.integers(0, len(BODY)), body=st.just(bytes(len(BODY)))),
)


@given(st.lists(PASSING, max_size=retry.TRIES_IN_A_ROW - 1), st.booleans(), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_passing_faults_are_overcome(
    server: FaultServer, tmp_path: Path, faults: list[Fault], ranges: bool, proven: bool
) -> None:
    server.faults, server.ranges = list(faults), ranges
    cache = Cache(tmp_path / f"cache{len(list(tmp_path.iterdir()))}", None)
    assert content(cache, f"{server.url}/x.tar", sha256=SHA256 if proven else None) == BODY


@given(st.lists(st.one_of(PASSING, LASTING), max_size=12), st.booleans())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_right_bytes_or_an_error(server: FaultServer, tmp_path: Path, faults: list[Fault], ranges: bool) -> None:
    server.faults, server.ranges = list(faults), ranges
    cache = Cache(tmp_path / f"cache{len(list(tmp_path.iterdir()))}", None)
    url = f"{server.url}/x.tar"
    for _ in range(2):  # the second attempt goes on with what the first one left
        try:
            assert content(cache, url) == BODY
        except DataError:
            assert not cache.path(url).exists()
