"""Makes the helpers of this folder importable; sets that several tests read."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from foreign import labelled, shards_of
from pictures import fill

from gandist.data.making.prepare import prepare


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("GANDIST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data sets are not there; point GANDIST_DATA at them")
    return folder.resolve()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """53 images of 8x8 px in three class folders."""
    return fill(tmp_path_factory.mktemp("photos"), {"cat": 20, "dog": 22, "emu": 11})


@pytest.fixture(scope="session")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos as raw 8 px RGB, in four shards; not to be changed."""
    destination = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(str(photos), destination, resolution=8, shard_images=14, workers=0)
    return destination


@pytest.fixture
def shards_copy(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards that a test may damage."""
    import shutil

    return Path(shutil.copytree(shards, tmp_path / "copy"))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three sound shards of five labelled images each."""
    return shards_of(tmp_path / "three", *(labelled(5, 5 * number) for number in range(3)))
