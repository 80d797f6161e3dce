"""``prepare``: the same bytes always, whole or not at all, and words for everything that goes wrong."""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import everything_under, fill, opened, picture, png
from PIL import Image

from gandist.data.making import ledger
from gandist.data.making import prepare as prepare_module
from gandist.data.making.prepare import Summary, prepare
from gandist.data.shards.index_files import INDEX_NAME, read_index
from gandist.data.shards.scan import scan
from gandist.errors import ConfigError, DataError, MachineError


def prepared(source: Path | str, destination: Path, **options: Any) -> Summary:
    return prepare(str(source), destination, **{"resolution": 8, "workers": 0, **options})


def test_every_run_writes_the_same_bytes(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, a day later, and with two processes that take turns."""
    monkeypatch.setattr("gandist.data.making.write._WORTH_A_POOL", 1)
    monkeypatch.setattr("gandist.data.making.write._TASK_IMAGES", 2)
    for kind in ("npy", "png", "webp", "jpeg"):
        prepared(photos, tmp_path / kind / "one", format=kind)
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: 2e9)
            prepared(photos, tmp_path / kind / "two", format=kind)
        prepared(photos, tmp_path / kind / "three", format=kind, workers=2)
        one, two, three = (everything_under(tmp_path / kind / name) for name in ("one", "two", "three"))
        assert one == two == three
        assert set(one) == {"shard-000000.tar", "index.json", "index.safetensors", "preview.png"}


def test_seeds_shuffle_differently(tmp_path: Path, photos: Path) -> None:
    prepared(photos, tmp_path / "a")
    prepared(photos, tmp_path / "b", seed=1)
    a, b = read_index(tmp_path / "a"), read_index(tmp_path / "b")
    assert (a.label != b.label).sum() > 10
    assert a.class_counts == b.class_counts
    runs = int((np.diff(a.label) != 0).sum())
    assert runs > 20, "the classes are written mixed"


def test_the_summary(tmp_path: Path, photos: Path) -> None:
    (photos / "notes.txt").write_text("x")
    try:
        summary = prepared(photos, tmp_path / "out put")
    finally:
        (photos / "notes.txt").unlink()
    assert (summary.images, summary.shards, summary.rejected) == (53, 1, ())
    assert summary.class_counts == {"cat": 20, "dog": 22, "emu": 11}
    assert summary.bytes == sum(len(body) for body in everything_under(tmp_path / "out put").values())
    text = str(summary)
    assert "53 images of 8x8x3 in 1 shard(s)" in text
    assert "3 classes: cat 20, dog 22, emu 11" in text
    assert "skipped: 1 .txt files" in text
    assert f"gandist train --data.shards '{tmp_path}/out put' --data.resolution 8 --data.channels 3" in text


def test_shards_are_even_and_bounded(tmp_path: Path, photos: Path) -> None:
    prepared(photos, tmp_path / "n", shard_images=14)
    assert [shard.samples for shard in read_index(tmp_path / "n").shards] == [14, 14, 14, 11]
    big = fill(tmp_path / "big", {".": 6}, (400, 400))
    prepared(big, tmp_path / "b", resolution=400, format="npy", shard_mib=1)
    shards = read_index(tmp_path / "b").shards
    assert [shard.samples for shard in shards] == [3, 3]
    assert max(shard.bytes for shard in shards) < 3 << 20


def test_classes_and_numbers_are_limited(tmp_path: Path, photos: Path) -> None:
    summary = prepared(photos, tmp_path / "c", classes=["emu", "cat"])
    assert summary.class_counts == {"cat": 20, "emu": 11}
    summary = prepared(photos, tmp_path / "m", max_images=10)
    assert summary.images == 10
    assert sum(count > 0 for count in summary.class_counts.values()) > 1, "a mixed choice"
    with pytest.raises(DataError, match=r"has no class 'dig'; it has cat, dog, emu\. Did you mean 'dog'\?"):
        prepared(photos, tmp_path / "x", classes=["dig"])
    with pytest.raises(DataError, match="have no classes"):
        prepared(fill(tmp_path / "loose", {".": 3}), tmp_path / "x", classes=["a"])
    assert not (tmp_path / "x").exists()


def test_the_preview_has_a_row_for_each_class(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for name, colour in {"a": (250, 0, 0), "b": (0, 250, 0)}.items():
        (source / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8), colour).save(source / name / f"{number}.png")
    prepared(source, tmp_path / "d")
    with Image.open(tmp_path / "d" / "preview.png") as preview:
        sheet = np.asarray(preview)
    top, bottom = np.split(sheet[:, 120:], 2)
    assert (top == [250, 0, 0]).all()
    assert (bottom == [0, 250, 0]).all()
    assert sheet[:, :120].min() < 100, "the names are written"


def test_unicode_classes_and_names_pass_through(tmp_path: Path) -> None:
    source = tmp_path / "q"
    for name in ("猫", "ñandú\n🐦", "\udcff"):
        (source / name).mkdir(parents=True)
        picture().save(source / name / ("長" * 80 + ".png"))
    summary = prepared(source, tmp_path / "d")
    assert opened(tmp_path / "d").class_names == tuple(sorted(("猫", "ñandú\n🐦", "\udcff")))
    str(summary).encode()


def test_glyphs_are_prepared_like_any_source(tmp_path: Path) -> None:
    summary = prepared("glyphs:30", tmp_path / "g", resolution=16, channels=1)
    assert summary.images == 30
    assert opened(tmp_path / "g", resolution=16, channels=1).read(np.arange(30))[0].shape == (30, 16, 16, 1)


# --- refusals: in words, and nothing is lost or left behind ---------------------------------------------------


def refuses(kind: type[Exception], complaint: str, source: Path | str, destination: Path, **options: Any) -> str:
    """Check that ``prepare`` refuses and leaves the file system as it was."""
    above = destination.parent
    before = everything_under(above), sorted(path.name for path in above.iterdir())
    with pytest.raises(kind) as caught:
        prepared(source, destination, **options)
    assert complaint in str(caught.value)
    assert (everything_under(above), sorted(path.name for path in above.iterdir())) == before
    return str(caught.value)


def test_nothing_is_overwritten(tmp_path: Path, photos: Path) -> None:
    for name in ("folder", "file", "link"):
        destination = tmp_path / name
        if name == "folder":
            fill(destination, {"x": 1})
        elif name == "file":
            destination.write_text("mine")
        else:
            destination.symlink_to(tmp_path / "nowhere")
        refuses(DataError, f"{destination}: exists already", photos, destination)
    (tmp_path / "empty").mkdir()
    assert prepared(photos, tmp_path / "empty").images == 53, "an empty folder is free"
    assert prepared(photos, tmp_path / "new" / "deep" / "down").images == 53


def test_the_source_is_never_written_to(photos: Path) -> None:
    refuses(DataError, "lies inside the source", photos, photos / "shards")
    refuses(DataError, "lies inside the source", f"{photos}/.", photos / "cat" / "shards")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"resolution": 0}, "--resolution 0: must be at least 1 and at most 4096"),
        ({"resolution": 5000}, "--resolution 5000"),
        ({"quality": 101}, "--quality 101: must be at least 1 and at most 100"),
        ({"max_images": 0}, "--max-images 0: must be at least 1."),
        ({"max_rejected": -1}, "--max-rejected -1"),
        ({"shard_images": 0}, "--shard-images 0"),
        ({"shard_mib": 0}, "--shard-mib 0"),
        ({"workers": -1}, "--workers -1"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, photos: Path, options: dict[str, int], complaint: str
) -> None:
    refuses(ConfigError, complaint, photos, tmp_path / "d", **options)


def test_unusable_images_fail_with_names_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "s", {"cat": 20})
    for number in range(3):
        (source / "cat" / f"page{number}.png").write_text("<html>")
    (source / "cat" / "cut.png").write_bytes(png()[:-40])
    said = refuses(DataError, "4 of 24 images cannot be used, 0 may be rejected", source, tmp_path / "d")
    assert "  cat/cut.png: cannot be decoded" in said
    assert "  cat/page1.png: is not an image of a known format" in said
    assert "--max-rejected" in said
    assert "--allow-upscale" not in said
    refuses(DataError, "4 of 24 images cannot be used, 3 may be rejected", source, tmp_path / "d", max_rejected=3)
    summary = prepared(source, tmp_path / "d", max_rejected=4)
    assert summary.images == 20
    assert {name for name, _ in summary.rejected} == {"cat/cut.png", *(f"cat/page{n}.png" for n in range(3))}
    assert "4 rejected: 3 not an image, 1 damaged" in str(summary)
    index = read_index(tmp_path / "d")
    assert [entry["name"] for entry in index.rejected] == [name for name, _ in summary.rejected]
    monkeypatch.setattr("gandist.data.making.write._WORTH_A_POOL", 1)
    prepared(source, tmp_path / "pool", max_rejected=4, workers=1)
    assert everything_under(tmp_path / "pool") == everything_under(tmp_path / "d")


def test_very_many_unusable_images_are_not_all_tried(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", {".": 1})
    for number in range(100):
        (source / f"{number}.jpg").write_text("x")
    said = refuses(DataError, "At least 1", source, tmp_path / "d")
    assert said.count(".jpg:") == 10
    (source / "0000.png").unlink()
    refuses(DataError, "All of 100 images cannot be used", source, tmp_path / "d", max_rejected=200)


def test_too_small_images_name_the_smallest(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", {"a": 3})
    picture((5, 9)).save(source / "a" / "five.png")
    picture((1, 1)).save(source / "a" / "one.png")
    said = refuses(DataError, "2 of 5 images cannot be used", source, tmp_path / "d")
    assert "The smallest is a/one.png with 1x1 px" in said
    assert "--allow-upscale" in said
    assert "Repair" not in said
    assert prepared(source, tmp_path / "d", allow_upscale=True).images == 5
    assert prepared(source, tmp_path / "p", fit="pad").images == 5


def test_names_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", {".": 1})
    (source / "\x1b[2Jx.png").write_text("x")
    said = refuses(DataError, "\\x1b[2Jx.png: is not an image", source, tmp_path / "d")
    assert "\x1b" not in said


def test_a_source_that_is_no_source_leaves_nothing(tmp_path: Path) -> None:
    refuses(DataError, "there is no such file or folder", tmp_path / "none", tmp_path / "d")
    (tmp_path / "empty").mkdir()
    refuses(DataError, "holds no image", tmp_path / "empty", tmp_path / "d")
    (tmp_path / "a.tar.gz").write_bytes(b"not gzip")
    refuses(DataError, "cannot be unpacked", tmp_path / "a.tar.gz", tmp_path / "d")


def test_a_full_disk_before_anything_is_finished_leaves_nothing(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_begun", "_check_space"):
        with monkeypatch.context() as failing:

            def full(*_: object, **__: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            failing.setattr(prepare_module, name, full)
            refuses(MachineError, "the disk is full. Nothing was left behind", photos, tmp_path / "d")


LIMITED = """
import resource, sys
from pathlib import Path
from gandist.data.making.prepare import prepare
from gandist.errors import MachineError

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    prepare(sys.argv[1], Path(sys.argv[2]), resolution=64, allow_upscale=True, workers=0)
except MachineError as error:
    print(error)
"""


def test_a_real_write_that_fails_is_said_and_cleaned_up(tmp_path: Path, photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(photos), str(tmp_path / "d")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "a file reached the size limit" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_known_beforehand(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100_000

    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda _: Usage)
    refuses(MachineError, "GiB free, the shards need about", photos, tmp_path / "d")


def test_the_forecast_of_space_is_about_right(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(photos, tmp_path / "d")
    real = sum(shard.bytes for shard in read_index(tmp_path / "d").shards)
    for free, fits in [(real * 0.9, False), (real * 1.1, True)]:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda _, usage=usage: usage)
        if fits:
            prepared(photos, tmp_path / "e")
        else:
            refuses(MachineError, "GiB free", photos, tmp_path / "e")


def test_folders_that_cannot_be_written_are_named(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        prepared(photos, tmp_path / "file" / "d")
    assert (tmp_path / "file").read_text() == "x"


def test_a_dead_worker_is_said_and_cleaned_up(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gandist.data.making.write._WORTH_A_POOL", 1)
    submit = ProcessPoolExecutor.submit
    monkeypatch.setattr(ProcessPoolExecutor, "submit", lambda pool, *_: submit(pool, os._exit, 9))
    refuses(MachineError, "A process that makes images died", photos, tmp_path / "d", workers=1)


def test_what_was_written_is_verified(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses bytes silently is noticed when every finished shard is read back."""
    digest_on_disk = ledger.digest_on_disk

    def lost(path: Path) -> str:
        os.truncate(path, path.stat().st_size // 2)
        return digest_on_disk(path)

    monkeypatch.setattr(ledger, "digest_on_disk", lost)
    refuses(DataError, "shard-000000.tar: does not hold what was written to it", photos, tmp_path / "d")


def test_the_index_is_what_a_walk_through_the_shards_finds(tmp_path: Path, photos: Path) -> None:
    prepared(photos, tmp_path / "d", shard_images=20, format="png")
    index = read_index(tmp_path / "d")
    walked = [scan(tmp_path / "d", shard.url, image_ext="png", classes=3) for shard in index.shards]
    assert [each.shard for each in walked] == list(index.shards)
    for name in ("offset", "size", "label"):
        assert (np.concatenate([getattr(each, name) for each in walked]) == getattr(index, name)).all()


def test_the_index_describes_the_images(tmp_path: Path, photos: Path) -> None:
    prepared(photos, tmp_path / "d", fit="pad", resample="box", channels=1)
    index = read_index(tmp_path / "d")
    assert (index.resolution, index.channels, index.image_ext) == (8, 1, ("npy",))
    assert index.transform == {
        "fit": "pad", "resample": "box", "format": "npy", "allow_upscale": False, "transparency": "white",
    }  # fmt: skip
    assert index.source == f"folder {photos.name}"
    assert str(photos) not in (tmp_path / "d" / INDEX_NAME).read_text()
