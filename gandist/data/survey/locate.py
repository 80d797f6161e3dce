"""Which shards are meant, the folder or url that all of them lie below, and where the index goes."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gandist.data.remote.address import expand, is_remote, shown
from gandist.errors import ConfigError, DataError


@dataclass(frozen=True)
class Lot:
    """The shards of one set.

    Attributes:
        root: the folder or url that all of them lie below.
        urls: of each shard, relative to the root.
        out: the folder that the index goes to.

    """

    root: str
    urls: tuple[str, ...]
    out: Path

    @property
    def remote(self) -> bool:
        """Whether the shards lie on another machine."""
        return is_remote(self.root)

    @property
    def apart(self) -> bool:
        """Whether the index lies elsewhere than the root, so that training must be told of both."""
        return self.remote or Path(self.root).resolve() != self.out.resolve()

    def address(self, url: str) -> str:
        """Return the path or url of a shard."""
        return f"{self.root.rstrip('/')}/{url}"


def locate(patterns: Sequence[str], out: Path | None, *, allow_http: bool) -> Lot:
    """Return the shards that ``patterns`` name.

    Raises:
        ConfigError: an address is not accepted, or it is not clear where the index should go.
        DataError: a shard is not there, is named twice, or has a name that no index can hold.

    """
    addresses = expand(patterns, allow_http=allow_http)
    if len({is_remote(address) for address in addresses}) > 1:
        raise ConfigError("Some shards lie on this machine and some do not. Index them apart, or copy them together.")
    remote = is_remote(addresses[0])
    root, urls = _below_url(addresses) if remote else _below_folder(addresses)
    for url in urls:
        if re.match(r"[^/]*:", url) or "\0" in url or ".." in url.split("/"):
            raise DataError(f"{shown(f'{root}/{url}')}: an index cannot name a shard with '..' or ':'; rename it.")
    if twice := [url for url, count in Counter(urls).items() if count > 1]:
        raise DataError(f"{shown(f'{root}/{twice[0]}')}: is named {Counter(urls)[twice[0]]} times among the shards.")
    if out is None:
        out = _default_out(root, remote)
    out = out.expanduser()
    _check_writable(out)
    return Lot(root, tuple(urls), out)


def _below_folder(addresses: Sequence[str]) -> tuple[str, list[str]]:
    paths = [Path(os.path.normpath(Path(address).expanduser().absolute())) for address in addresses]
    root = os.path.commonpath([path.parent for path in paths])
    return root, [path.relative_to(root).as_posix() for path in paths]


def _below_url(addresses: Sequence[str]) -> tuple[str, list[str]]:
    parts = [urlsplit(address) for address in addresses]
    for address, part in zip(addresses, parts, strict=True):
        if part.query or part.fragment:
            raise ConfigError(
                f"{shown(address)}: an address with a query, such as a signed one, cannot be kept in an index. "
                "Give the plain address; credentials come from the environment."
            )
    if len({(part.scheme, part.netloc) for part in parts}) > 1:
        raise ConfigError(
            f"{shown(addresses[0])} and others lie on different hosts or in different buckets; index them apart."
        )
    folders = [part.path.lstrip("/").split("/")[:-1] for part in parts]
    common = [
        names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    ]
    root = "/".join([f"{parts[0].scheme}://{parts[0].netloc}", *common])
    return root, [part.path.lstrip("/").split("/", len(common))[-1] for part in parts]


def _default_out(root: str, remote: bool) -> Path:
    if remote:
        raise ConfigError(f"{shown(root)}: the index cannot be written there. Say where it should go: --out FOLDER")
    if not os.access(root, os.W_OK):
        raise ConfigError(f"{root}: nothing can be written there. Say where the index should go: --out FOLDER")
    return Path(root)


def _check_writable(out: Path) -> None:
    """Find out before the work that the index can be written."""
    there = out
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"--out {out}: {there} is a file, not a folder.")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"--out {out}: nothing can be written in {there}.")
