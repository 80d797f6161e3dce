"""Two hosts on one machine: network namespaces with a cable between them that can be cut."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


class Hosts:
    """Two hosts, 0 and 1, which see each other over one cable and nothing else."""

    addresses = ("10.213.77.1", "10.213.77.2")
    interface = "cable"

    def __init__(self, name: str) -> None:
        self.names = (f"{name}a", f"{name}b")

    def build(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        first, second = self.names
        ip("-n", first, "link", "add", self.interface, "type", "veth", "peer", "name", self.interface, "netns", second)
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", self.interface)
        self.plug_in()

    def cut(self) -> None:
        ip("-n", self.names[1], "link", "set", self.interface, "down")

    def plug_in(self) -> None:
        for name in self.names:
            ip("-n", name, "link", "set", self.interface, "up")

    def drop(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def on(self, host: int, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command on a host."""
        return ["ip", "netns", "exec", self.names[host], *command]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(f"gandist{abs(hash(tmp_path)) % 10**6}")
    try:
        made.build()
    except (OSError, subprocess.CalledProcessError) as error:
        made.drop()
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', None) or error}")
    yield made
    made.drop()
