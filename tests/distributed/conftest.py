"""Makes the helpers of this folder importable; what ranks played is played once for all tests."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from playing import Played, play


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Played]:
    """Return what so many ranks ended with in a case; a group of cases is played by one start of the ranks."""
    known: dict[tuple[str, int], dict[str, Played]] = {}

    def of(name: str, world: int) -> Played:
        group = name.partition(":")[0]
        if (group, world) not in known:
            known[group, world] = play(group, world, tmp_path_factory.mktemp(f"{group}_{world}"))
        return known[group, world][name]

    return of
