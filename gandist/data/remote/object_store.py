"""One attempt at a file of an object store, through its fsspec driver; credentials are the driver's own affair."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from gandist.data.remote.address import scheme_of, shown
from gandist.data.remote.part import Part, TransientError
from gandist.errors import DataError, GandistError, MachineError

PIECE_BYTES = 64 << 20
"""Most that is asked for at a time."""
PIECE_SECONDS = 300.0
"""Longest that a piece may take."""
CONNECT_SECONDS = 20.0
STALL_SECONDS = 30.0

_DRIVERS = {
    "s3": "s3fs: pip install 'gandist[s3]'",
    "s3a": "s3fs: pip install 'gandist[s3]'",
    "gs": "gcsfs: pip install 'gandist[gs]'",
    "gcs": "gcsfs: pip install 'gandist[gs]'",
    "hf": "huggingface_hub: pip install 'gandist[hf]'",
    "az": "adlfs: pip install adlfs",
    "abfs": "adlfs: pip install adlfs",
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon for a public bucket",
    "hf": "HF_TOKEN",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_SAME_AS = {"s3a": "s3", "gcs": "gs", "abfs": "az"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}

T = TypeVar("T")


def fetch(part: Part) -> None:
    """Append to ``part`` what a store has beyond it, a piece at a time; a small file is one request.

    Raises:
        DataError: the file is not there, we may not read it, or it is not the one that was expected.
        MachineError: the driver is not installed.
        TransientError: the attempt failed, and another one may not.

    """
    driver, path = _open(part.url)
    begins = part.length
    if part.size is None or not part.proven:
        _same_version(driver, path, part)
    while not part.complete:
        assert part.size is not None
        end = min(part.length + PIECE_BYTES, part.size + 1)  # a byte too many shows that the file is longer
        data = _call(part.url, driver, driver.cat_file, path, start=part.length, end=end)
        if part.length + len(data) != min(end, part.size):
            part.expect(_describe(driver, path, part)[0])
        if not data:
            raise TransientError("the store sent nothing")
        part.write(data)
    if part.tag is not None and not part.proven and (begins or part.length > PIECE_BYTES):
        _same_version(driver, path, part)  # several pieces, between which it may have changed


def _same_version(driver: Any, path: str, part: Part) -> None:
    """Begin anew if the file is not the version that ``part`` holds bytes of."""
    total, tag = _describe(driver, path, part)
    if tag != part.tag or (part.length and not part.resumable):
        held = part.length
        part.restart(tag)
        if held:
            raise TransientError("the file changed while it was fetched")
    part.expect(total)


def _describe(driver: Any, path: str, part: Part) -> tuple[int, str | None]:
    """Return a file's size and what names its version."""
    known = _call(part.url, driver, driver.info, path)
    names = ("ETag", "etag", "generation", "md5Hash", "blob_id", "LastModified", "last_modified")
    tag = next((str(known[name]) for name in names if known.get(name)), None)
    if known.get("type") == "directory" or known.get("size") is None:
        raise DataError(f"{shown(part.url)}: is a folder, not a file.")
    return int(known["size"]), tag


def listing(url: str) -> list[str]:
    """Return the urls of what matches a pattern with stars, or of every ``*.tar`` below a folder, sorted."""
    driver, path = _open(url)
    find = driver.glob if any(sign in path for sign in "*?[") else driver.find
    # A folder that is not there is an empty list in most drivers.
    found = [name for name in _call(url, driver, find, path) if find is driver.glob or name.endswith(".tar")]
    scheme = scheme_of(url)
    return sorted(f"{scheme}://{name.removeprefix(f'{scheme}://').lstrip('/')}" for name in found)


def _open(url: str) -> tuple[Any, str]:
    """Return the driver of a url, and what it calls the file."""
    import fsspec

    scheme = scheme_of(url)
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        raise MachineError(f"{shown(url)}: reading {scheme}:// needs the package {_DRIVERS[scheme]}") from None
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        theirs = fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
        options["config_kwargs"] = {"connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS, **theirs}
    driver, path = _call(url, None, fsspec.core.url_to_fs, url, **options)
    return driver, path


def _call(url: str, driver: Any, call: Callable[..., T], *given: Any, **named: Any) -> T:
    """Call a driver, and say in our words what it raises."""
    if getattr(driver, "async_impl", False):
        named["timeout"] = PIECE_SECONDS  # taken by what runs the driver's coroutine
    scheme = _SAME_AS.get(scheme_of(url), scheme_of(url))
    try:
        return call(*given, **named)
    except GandistError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise DataError(f"{shown(url)}: there is no such file, or no such bucket.") from None
    except PermissionError as error:
        raise DataError(_refused(url, scheme, error)) from None
    except Exception as error:  # drivers have no common tree of errors
        if type(error).__name__ in _NO_CREDENTIALS:
            raise DataError(_refused(url, scheme, error)) from None
        raise TransientError(_words(error)) from None


def _refused(url: str, scheme: str, error: Exception) -> str:
    return (
        f"{shown(url)}: the store does not let us read it ({_words(error)}). "
        f"Credentials come from the environment: {_CREDENTIALS[scheme]}."
    )


def _words(error: Exception) -> str:
    """Return what a driver said, on one line and without the queries of urls, which may be signed."""
    said = " ".join(re.sub(r"\?[^\s\"']+", "", str(error)).split())[:300]
    return said or type(error).__name__
