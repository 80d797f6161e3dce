"""What may stand where a recipe or a command line names data: paths, and the urls that gandist reads.

Urls of other kinds are refused, among them those that other readers of shards would run as a command or fill in from
the environment.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from gandist.errors import ConfigError, DataError, did_you_mean

WEB_SCHEMES = ("https", "http")
STORE_SCHEMES = ("s3", "s3a", "gs", "gcs", "hf", "az", "abfs")
"""Object stores, read through their fsspec drivers."""

ACCEPTED = "Accepted are folders and files of this machine, https://, s3://, gs://, hf:// and az://."

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_EXPANDED_LIMIT = 1 << 20


def is_remote(text: str) -> bool:
    """Return whether ``text`` is a url, of any scheme, and no path."""
    return _SCHEME.match(text) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a url, in small letters."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def check_address(url: str, *, allow_http: bool) -> None:
    """Raise :class:`ConfigError` unless ``url`` is one that gandist reads, without a command or a secret in it."""
    check_plain(url)
    scheme = scheme_of(url)
    if scheme == "file":
        raise ConfigError(f"{shown(url)}: write the path itself, without file://.")
    if scheme not in WEB_SCHEMES + STORE_SCHEMES:
        what = f"the scheme {scheme}:// is unknown" if scheme else "this is no url"
        raise ConfigError(f"{shown(url)}: {what}.{did_you_mean(scheme, WEB_SCHEMES + STORE_SCHEMES)} {ACCEPTED}")
    parts = _split(url)
    if not parts.netloc:
        raise ConfigError(f"{shown(url)}: names no {'host' if scheme in WEB_SCHEMES else 'bucket'}.")
    user, at, _ = parts.netloc.rpartition("@")
    if at and (scheme != "abfs" or ":" in user):  # abfs://container@account is how Azure writes a place
        raise ConfigError(f"{shown(url)}: holds a user name or password. Credentials come from the environment alone.")
    if scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{shown(url)}: nothing proves who answers http://. Use https://, or insist with --data.allow_http true."
        )


def check_plain(text: str) -> None:
    """Raise :class:`ConfigError` for what other readers of shards would run, fill in or rewrite."""
    if text == "-" or text.startswith("pipe:"):
        raise ConfigError(
            f"{shown(text)}: data is read from files, never from a command or from standard input. {ACCEPTED}"
        )
    for sign in ("${", "::"):
        if sign in text.partition("?")[0] and not Path(text).exists():
            raise ConfigError(f"{shown(text)}: {sign!r} is not understood in the name of data. {ACCEPTED}")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """Return ``url`` as it may be printed: without a query, which often holds a signature, and without credentials."""
    scheme = scheme_of(url)
    if not scheme:
        return _printable(url)
    place, _, path = url[len(scheme) + 3 :].partition("/")
    user, at, host = place.rpartition("@")
    if at and (scheme != "abfs" or ":" in user):
        place = host
    whole = f"{scheme}://{place}/{path}" if path else f"{scheme}://{place}"
    return _printable(re.split(r"[?#]", whole, maxsplit=1)[0])


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def join(root: str, relative: str) -> str:
    """Return the url of ``relative`` below ``root``; a query of the root stays at the end."""
    parts = _split(root)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{relative}"))


def base_name(url: str) -> str:
    """Return the last part of a url's path."""
    return _split(url).path.rstrip("/").rpartition("/")[2]


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{shown(url)}: is no url ({error}).") from None


# --- lists of shards ---------------------------------------------------------------------------------------


def expand(patterns: Sequence[str], *, allow_http: bool = False) -> list[str]:
    """Return the shards that the patterns name, each as a path or url: braces, stars, folders and single files.

    Braces are ``{000..012}`` or ``{a,b}``. A folder stands for every ``*.tar`` below it. Stars and folders need a place
    that can be listed: this machine or an object store.

    Raises:
        ConfigError: an address is not accepted, or a pattern cannot be read.
        DataError: a pattern matches nothing, or names a place that cannot be listed.

    """
    found: list[str] = []
    for pattern in patterns:
        check_plain(pattern)
        literal = not is_remote(pattern) and Path(pattern).expanduser().exists()
        for text in [pattern] if literal else _without_braces(pattern):
            found += _listed_url(text, allow_http) if is_remote(text) else _listed_path(text)
    return found


def _without_braces(pattern: str) -> list[str]:
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece, pattern) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    total = math.prod(map(len, choices))
    if total > _EXPANDED_LIMIT:
        raise ConfigError(f"{shown(pattern)}: stands for {total} shards; the limit is {_EXPANDED_LIMIT}.")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str, pattern: str) -> list[str]:
    bounds = _RANGE.fullmatch(inside)
    if bounds is None:
        if "," not in inside:
            raise ConfigError(f"{shown(pattern)}: {{{inside}}} is no range like {{000..012}} and no list like {{a,b}}.")
        return inside.split(",")
    first, last = int(bounds[1]), int(bounds[2])
    if last < first or last - first >= _EXPANDED_LIMIT:
        raise ConfigError(f"{shown(pattern)}: {{{inside}}} does not rise, or names over {_EXPANDED_LIMIT} shards.")
    width = len(bounds[1]) if bounds[1].startswith("0") else 0
    return [str(number).zfill(width) for number in range(first, last + 1)]


def _listed_path(text: str) -> list[str]:
    path = Path(text).expanduser()
    if path.is_dir():
        return _not_empty(sorted(str(p) for p in path.rglob("*.tar") if p.is_file()), text)
    if path.exists():
        return [str(path)]
    if _has_stars(text):
        anchor = Path(path.anchor)
        return _not_empty(sorted(map(str, anchor.glob(str(path.relative_to(anchor))))), text)
    raise DataError(f"{shown(text)}: there is no such file or folder.")


def _listed_url(url: str, allow_http: bool) -> list[str]:
    check_address(url, allow_http=allow_http)
    single = url.partition("?")[0].endswith(".tar") if scheme_of(url) in WEB_SCHEMES else url.endswith(".tar")
    if scheme_of(url) in WEB_SCHEMES:
        if "*" in url or not single:
            raise DataError(
                f"{shown(url)}: a web server cannot be asked for a list. Name the shards: https://HOST/{{000..099}}.tar"
            )
        return [url]
    if single and not _has_stars(url):
        return [url]
    from gandist.data.remote.object_store import listing  # its drivers take a while to import

    return _not_empty(listing(url), url)


def _has_stars(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _not_empty(found: list[str], pattern: str) -> list[str]:
    if not found:
        remedy = f" If it holds images: gandist prepare {shown(pattern)} SHARDS" if Path(pattern).is_dir() else ""
        raise DataError(f"{shown(pattern)}: no shard (*.tar) is there.{remedy}")
    return found
