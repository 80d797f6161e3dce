"""One attempt at a file of a web server: what is missing of it is asked for and appended."""

from __future__ import annotations

import functools
import http.client
import re
import ssl
import time
import urllib.request
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import gandist
from gandist.data.remote.address import check_address, is_loopback, scheme_of, shown
from gandist.data.remote.part import Part, TransientError
from gandist.errors import DataError

CONNECT_SECONDS = 20.0
STALL_SECONDS = 30.0
"""Longest silence of a server in the middle of an answer."""
SLOW_SECONDS, SLOW_BYTES = 60.0, 64 << 10
"""A server that sends less than these bytes in this time counts as silent."""
CHUNK_BYTES = 1 << 20

_TRY_AGAIN = {408, 425, 429}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def fetch(part: Part, *, allow_http: bool) -> None:
    """Append to ``part`` what a server has beyond it.

    Raises:
        DataError: the file is not there, we may not read it, or it is not the one that was expected.
        TransientError: the attempt failed, and another one may not.

    """
    check_address(part.url, allow_http=allow_http)
    headers = {"User-Agent": f"gandist/{gandist.__version__}", "Accept-Encoding": "identity"}
    if part.resumable:
        headers["Range"] = f"bytes={part.length}-"
        if part.tag is not None:
            headers["If-Range"] = part.tag
    request = urllib.request.Request(part.url, headers=headers)
    loopback = is_loopback(urlsplit(part.url).hostname or "")
    try:
        with _opener(allow_http, loopback).open(request, timeout=CONNECT_SECONDS) as response:
            _receive(response, part, _accept(response, part))
    except HTTPError as error:
        with error:
            raise _refused(error, part) from None
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{shown(part.url)}: the server's certificate is not valid ({error.reason}).") from None
        raise TransientError(str(error.reason) or type(error.reason).__name__) from None
    except TimeoutError:
        raise TransientError(f"the server was silent for {STALL_SECONDS:g} s") from None
    except (http.client.HTTPException, OSError) as error:
        raise TransientError(str(error) or type(error).__name__) from None


def _accept(response: Any, part: Part) -> int | None:
    """Make ready for the body of an answer; return its length, or None where the server does not say it."""
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise DataError(f"{shown(part.url)}: the server sends it encoded ({encoding}); it must be served as it is.")
    if response.status not in (200, 206):
        raise DataError(f"{shown(part.url)}: the server answered {response.status} {response.reason}.")
    length = int(text) if (text := response.headers.get("Content-Length", "")).isdigit() else None
    tag = _tag(response.headers)
    if response.status == 200:  # all of it, whatever we asked for
        part.restart(tag)
        if length is not None:
            part.expect(length)
        return length
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != part.length or tag != part.tag:
        part.restart(None)
        raise TransientError("the server answered with another part, or with another version of the file")
    if found[2] != "*":
        part.expect(int(found[2]))
    return length


def _receive(response: Any, part: Part, length: int | None) -> None:
    """Append the body, as it comes; what is too slow is given up."""
    left, mark, since = length, part.length, time.monotonic()
    while left is None or left > 0:
        data = response.read1(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        if not data:
            break
        part.write(data)
        left = None if left is None else left - len(data)
        if (now := time.monotonic()) - since >= SLOW_SECONDS:
            if part.length - mark < SLOW_BYTES:
                raise TransientError(f"only {part.length - mark} bytes came in {SLOW_SECONDS:g} s", slow=True)
            mark, since = part.length, now
    if left:
        raise TransientError(f"the connection was lost {left} bytes before the end")
    if length is None and part.size is None:
        if not response.chunked:
            raise DataError(
                f"{shown(part.url)}: the server does not say how long it is, so that a cut would go unseen."
            )
        part.expect(part.length)


def _refused(error: HTTPError, part: Part) -> Exception:
    """Return what an answer that is an error means."""
    where, status = shown(part.url), error.code
    said = f"{status} {http.client.responses.get(status, '')}".rstrip()  # their own words may hold a signed url
    if status == 416:  # nothing lies beyond what we have
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit() and part.size is not None and int(total) != part.size:
            return part.unequal(total)
        part.restart(None)
        return TransientError("the server has nothing beyond what arrived before")
    if status in _TRY_AGAIN or status >= 500:
        after = _retry_after(error.headers)
        return TransientError(f"the server answered {said}", retry_after_seconds=after)
    if status in (404, 410):
        return DataError(f"{where}: there is no such file ({said}).")
    if status in (401, 403):
        return DataError(f"{where}: the server does not let us read it ({said}).")
    return DataError(f"{where}: the server answered {said}.")


def _tag(headers: Message) -> str | None:
    """Return what names this version of a file: a strong entity tag, or else the time of its last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _retry_after(headers: Message) -> float | None:
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return None


# --- connections -------------------------------------------------------------------------------------------


class _Plain(http.client.HTTPConnection):
    """A connection that may take another time to open than to answer."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(STALL_SECONDS)


class _Secure(http.client.HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(STALL_SECONDS)


class _PlainHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self) -> None:
        super().__init__()
        self._trusted = ssl.create_default_context()

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Secure, req, context=self._trusted)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to what may be read anyway, and never from https to http."""

    max_redirections = 5

    def __init__(self, allow_http: bool) -> None:
        self._allow_http = allow_http

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if scheme_of(req.full_url) == "https" and scheme_of(newurl) != "https":
            raise DataError(f"{shown(req.full_url)}: leads to {shown(newurl)}, which is not https; not followed.")
        check_address(newurl, allow_http=self._allow_http)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def _opener(allow_http: bool, loopback: bool) -> urllib.request.OpenerDirector:
    """Return what opens urls; to this machine itself it goes through no proxy."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if loopback else None),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(allow_http),
        _PlainHandler(),
        _SecureHandler(),
    ):
        opener.add_handler(handler)
    return opener
