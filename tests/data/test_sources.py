"""What people point ``gandist prepare`` at."""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import fill, picture, png, tar_of
from PIL import Image

from gandist.data.making.payload import Payload, Pixels
from gandist.data.making.sources import FASHION_CLASSES, Source, open_source
from gandist.errors import DataError


def source(text: Path | str, scratch: Path, **options: object) -> Source:
    scratch.mkdir(exist_ok=True)
    defaults = {"resolution": 8, "channels": 3, "seed": 0, "download": False}
    return open_source(str(text), scratch, **{**defaults, **options})  # type: ignore[arg-type]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def contents(found: Source) -> list[tuple[str, bytes]]:
    """Class name and bytes of every image."""
    names = (*found.class_names, "-")
    return [(names[label], content(found.payload(i))) for i, label in enumerate(found.labels.tolist())]


def content(payload: Payload) -> bytes:
    return payload.pixels.tobytes() if isinstance(payload, Pixels) else payload.read()


MEMBERS = {"cat/1.png": png(1), "cat/2.png": png(2), "dog/1.png": png(3), "README.txt": b"hello", "dog/LICENSE": b""}
EXPECTED = sorted([("cat", png(1)), ("cat", png(2)), ("dog", png(3))])


def folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, body in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(body)
    return path


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def compressed_tar(path: Path, members: dict[str, bytes]) -> Path:
    opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[path.suffix]
    plain = tar_of(path.with_suffix(".plain"), members)
    with opener(path, "wb") as file:
        file.write(plain.read_bytes())
    plain.unlink()
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda p: folder(p / "photos", MEMBERS),
        lambda p: zipped(p / "a.zip", MEMBERS),
        lambda p: zipped(p / "a.ZIP", MEMBERS, zipfile.ZIP_STORED),
        lambda p: tar_of(p / "a.tar", MEMBERS),
        lambda p: tar_of(p / "a.tar", MEMBERS, format=tarfile.PAX_FORMAT),
        lambda p: compressed_tar(p / "a.tar.gz", MEMBERS),
        lambda p: compressed_tar(p / "a.tar.bz2", MEMBERS),
        lambda p: compressed_tar(p / "a.tar.xz", MEMBERS),
        lambda p: zipped(p / "wrapped.zip", {f"set/images/{name}": body for name, body in MEMBERS.items()}),
        lambda p: folder(p / "wrapped", {f"inner/{name}": body for name, body in MEMBERS.items()}),
    ],
)
def test_class_folders_in_anything(tmp_path: Path, scratch: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    found = source(path, scratch)
    assert found.class_names == ("cat", "dog")
    assert sorted(contents(found)) == EXPECTED
    assert sum(found.skipped.values()) == 2
    assert path.name in found.title
    assert str(tmp_path) not in found.title
    assert all("png" in found.name(i) for i in range(3))


def test_several_archives_are_one_source(tmp_path: Path, scratch: Path) -> None:
    one = zipped(tmp_path / "1.zip", {"cat/1.png": png(1), "cat/2.png": png(2)})
    two = zipped(tmp_path / "2.zip", {"set/part/dog/1.png": png(3), "set/part/cat/x.gif": b""})
    both = source(f"{one},{two}", scratch)
    assert both.class_names == ("cat", "dog")
    assert both.labels.tolist() == [0, 0, 1, 0]
    assert both.title == "1.zip, 2.zip"
    inside = tmp_path / "zips"
    inside.mkdir()
    one.rename(inside / one.name)
    two.rename(inside / two.name)
    assert contents(source(inside, scratch)) == contents(source(f"{inside}/1.zip,{inside}/2.zip", scratch))


def test_loose_images_have_no_classes(tmp_path: Path, scratch: Path) -> None:
    for path in (
        folder(tmp_path / "loose", {"1.png": png(1), "2.PNG": png(2)}),
        folder(tmp_path / "one", {"all/1.png": png(1), "all/2.png": png(2)}),
        zipped(tmp_path / "l.zip", {"photos/1.png": png(1), "photos/2.png": png(2)}),
    ):
        found = source(path, scratch)
        assert found.class_names == ()
        assert contents(found) == [("-", png(1)), ("-", png(2))]


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path: Path, scratch: Path) -> None:
    found = source(folder(tmp_path / "n", {f"{n}/x.png": png(n) for n in (10, 2, 0)}), scratch)
    assert found.class_names == ("0", "2", "10")
    assert [found.labels[i] for i in range(3)] == [{png(0): 0, png(2): 1, png(10): 2}[b] for _, b in contents(found)]


def test_strange_names(tmp_path: Path, scratch: Path) -> None:
    names = ["猫", "ñandú 🐦", "a b'\"$(x)", "-rf", "x" * 255, "line\nbreak"]
    members = {f"{name}/{'y' * 251}.png": png(n) for n, name in enumerate(names)}
    members |= {f"-rf/{bytes([0xFF]).decode(errors='surrogateescape')}.png": png(9)}
    found = source(folder(tmp_path / "odd", members), scratch)
    assert found.class_names == tuple(sorted(names))
    assert len(found.labels) == len(members)
    deep = {"/".join(["very long folder name"] * 40) + f"/{c}/1.png": png(1) for c in "ab"}
    assert source(zipped(tmp_path / "deep.zip", deep), scratch).class_names == ("a", "b")


def test_the_same_name_twice_is_two_images(tmp_path: Path, scratch: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("1.png", png(1))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.png", png(2))
    assert contents(source(tmp_path / "d.zip", scratch)) == [("-", png(1)), ("-", png(2))]


def test_what_is_hidden_linked_or_special_is_skipped_and_counted(tmp_path: Path, scratch: Path) -> None:
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        for name, kind in [("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.FIFOTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.add(folder(tmp_path / "x", {"1.png": png(1)}) / "1.png", "../../1.png")
        archive.add(tmp_path / "x" / "1.png", "ok.png")
    found = source(tmp_path / "l.tar", scratch)
    assert contents(found) == [("-", png(1))]
    assert found.skipped == {"links": 2, "special files": 1, "hidden files": 1}
    link = zipfile.ZipInfo("l.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("__MACOSX/._1.png", b"")
        archive.writestr(".DS_Store", b"")
        archive.writestr("1.png", png(1))
    found = source(tmp_path / "l.zip", scratch)
    assert contents(found) == [("-", png(1))]
    assert found.skipped == {"links": 1, "hidden files": 2}


def test_links_in_folders_are_followed_but_not_in_circles(tmp_path: Path, scratch: Path) -> None:
    folder(tmp_path / "real", {"1.png": png(1)})
    fill(tmp_path / "farm", {"cat": 1})
    (tmp_path / "farm" / "dog").symlink_to(tmp_path / "real")
    (tmp_path / "farm" / "cat" / "l.png").symlink_to(tmp_path / "real" / "1.png")
    (tmp_path / "real" / "circle").symlink_to(tmp_path / "farm")
    found = source(tmp_path / "farm", scratch)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1]


def refusals() -> list[tuple[object, str]]:
    mixed = {"cat/1.png": b"", "dog/2.png": b"", "3.png": b"", "4.png": b""}
    return [
        (lambda p: p / "nowhere", "there is no such file or folder"),
        (lambda p: folder(p / "photos", MEMBERS).parent / "phtoos", "Did you mean 'photos'?"),
        (lambda p: "fashion-mist:x", "Did you mean 'fashion-mnist'?"),
        (lambda p: folder(p / "e", {}), "there is no such file or folder"),
        (lambda p: (p / "empty").mkdir() or p / "empty", "holds no image (.jpg .png"),
        (lambda p: folder(p / "t", {"a.txt": b"", "b.txt": b"", "c": b""}), "It holds 2 .txt files, 1 files without"),
        (lambda p: folder(p / "m", mixed), "2 images lie loose beside class folders (3.png, 4.png; but cat/1.png)"),
        (lambda p: zipped(p / "m.zip", mixed), "2 images lie loose beside class folders"),
        (lambda p: folder(p / "s", {"train/1.png": b"", "Test/1.png": b""}), "are parts of a data set, not classes"),
        (lambda p: folder(p / "f", {"a.bin": b""}) / "a.bin", "a file of a kind that is not understood"),
        (lambda p: f"{folder(p / 'f', MEMBERS)},{zipped(p / 'a.zip', MEMBERS)}", "a folder among several sources"),
        (lambda p: folder(p / "i", {"train-images-idx3-ubyte.gz": b""}), "fashion-mnist:"),
        (lambda p: folder(p, {"a.zip": b"not a zip"}) / "a.zip", "cannot be read as a zip file"),
        (lambda p: folder(p, {"a.tar": b"not a tar" * 99}) / "a.tar", "damaged at byte 0"),
        (lambda p: folder(p, {"a.tar.gz": b"not gzip"}) / "a.tar.gz", "cannot be unpacked"),
        (lambda p: folder(p, {"a.tar.gz": gzip.compress(bytes(10**6))[:-99]}) / "a.tar.gz", "cannot be unpacked"),
        (
            lambda p: folder(p, {"a.tar.xz": lzma.compress(bytes(66 << 20), preset=0)}) / "a.tar.xz",
            "more than 200 times",
        ),
        (lambda p: zipped(p / "z.zip", MEMBERS, zipfile.ZIP_LZMA), "is compressed with method 14"),
        (lambda p: encrypted(zipped(p / "z.zip", {"1.png": b"x"})), "is encrypted"),
        (lambda p: cut(zipped(p / "z.zip", MEMBERS)), "damaged or cut short"),
        (lambda p: cut(tar_of(p / "t.tar", MEMBERS)), "cut short"),
        (lambda p: "glyphs:many", "'many' is not a number of images"),
        (lambda p: "glyphs:0", "'0' is not a number of images"),
        (lambda p: "torchvision:CIFAR1O:x", "Did you mean 'CIFAR10'?"),
        (lambda p: f"torchvision:CIFAR10:{p}", "add --download"),
        (lambda p: f"torchvision:CIFAR10:{p}:val", "has the splits train and test"),
        (lambda p: f"torchvision:SEMEION:{p}:test", "is not divided into splits"),
        (lambda p: "torchvision:CIFAR10", "write torchvision:NAME:ROOT"),
    ]


@pytest.mark.parametrize(("make", "complaint"), refusals())
def test_what_cannot_be_a_source_is_refused(tmp_path: Path, scratch: Path, make: object, complaint: str) -> None:
    text = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        source(text, scratch)
    assert complaint in str(caught.value)


def encrypted(path: Path) -> Path:
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    return path


def cut(path: Path) -> Path:
    os.truncate(path, path.stat().st_size * 2 // 5)
    return path


# --- well-known sets ---------------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_folder(path: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train", ending: str = "") -> Path:
    pack = gzip.compress if ending else bytes
    return folder(path, {
        f"{prefix}-images-idx3-ubyte{ending}": pack(idx_bytes(images)),
        f"{prefix}-labels-idx1-ubyte{ending}": pack(idx_bytes(labels)),
    })  # fmt: skip


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(("split", "prefix"), [("", "train"), (":train", "train"), (":test", "t10k")])
def test_idx_files(tmp_path: Path, scratch: Path, ending: str, split: str, prefix: str) -> None:
    path = idx_folder(tmp_path / "mnist", IMAGES, LABELS, prefix, ending)
    found = source(f"mnist:{path}{split}", scratch)
    assert found.class_names == tuple("0123456789")
    assert found.labels.tolist() == LABELS.tolist()
    assert found.fit == "pad"
    assert [body for _, body in contents(found)] == [image.tobytes() for image in IMAGES]
    assert source(f"fashion-mnist:{path}{split}", scratch).class_names == FASHION_CLASSES


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (b"", idx_bytes(LABELS), "is not an idx file"),
        (b"\x1f\x8b123456", idx_bytes(LABELS), "is not an idx file"),
        (idx_bytes(IMAGES)[:10], idx_bytes(LABELS), "which cannot be"),
        (idx_bytes(IMAGES)[:-1], idx_bytes(LABELS), "promises 240 bytes, it holds 239"),
        (idx_bytes(IMAGES) + b"x", idx_bytes(LABELS), "promises 240 bytes, it holds more"),
        (idx_bytes(LABELS), idx_bytes(LABELS), "in 3 dimension(s)"),
        (struct.pack(">I3I", 0x803, 2**31, 2**31, 2**31), idx_bytes(LABELS), "which cannot be"),
        (struct.pack(">I3I", 0x803, 0, 5, 4), idx_bytes(LABELS), "which cannot be"),
        (idx_bytes(IMAGES), idx_bytes(LABELS[:-1]), "holds 12 images, but train-labels-idx1-ubyte 11 labels"),
        (idx_bytes(IMAGES), idx_bytes(LABELS + 3), "has labels up to 12, fashion-mnist has 10 classes"),
    ],
)
def test_wrong_idx_files_are_refused(
    tmp_path: Path, scratch: Path, images: bytes, labels: bytes, complaint: str
) -> None:
    folder(tmp_path, {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels})
    with pytest.raises(DataError) as caught:
        source(f"fashion-mnist:{tmp_path}", scratch)
    assert complaint in str(caught.value)


def test_missing_or_cut_idx_files_are_refused(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        source(f"mnist:{tmp_path}/none", scratch)
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte or \.gz; it holds notes"):
        source(f"mnist:{folder(tmp_path / 'a', {'notes': b''})}", scratch)
    path = idx_folder(tmp_path / "b", IMAGES, LABELS, ending=".gz")
    cut(path / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match="cannot be read"):
        source(f"mnist:{path}", scratch)


def test_torchvision(tmp_path: Path, scratch: Path) -> None:
    idx_folder(tmp_path / "MNIST" / "raw", np.tile(IMAGES, (1, 2, 2)), LABELS)
    idx_folder(tmp_path / "MNIST" / "raw", IMAGES[:3], LABELS[3:6], "t10k")
    found = source(f"torchvision:MNIST:{tmp_path}", scratch)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.class_names[3] == "3 - three"
    assert found.title == "torchvision MNIST train"
    assert [body for _, body in contents(found)] == [image.tobytes() for image in np.tile(IMAGES, (1, 2, 2))]
    assert source(f"torchvision:MNIST:{tmp_path}:test", scratch).labels.tolist() == [3, 4, 5]
    generated = source(f"torchvision:ImageFolder:{fill(tmp_path / 'f', {'b': 1, 'a': 2})}", scratch)
    assert (generated.class_names, generated.labels.tolist()) == (("a", "b"), [0, 0, 1])
    assert content(generated.payload(0)) == np.asarray(picture(seed=1)).tobytes()


def test_glyphs(scratch: Path) -> None:
    found = source("glyphs:50", scratch, resolution=16, channels=1, seed=3)
    assert len(found.labels) == 50
    assert found.class_names == tuple("0123456789")
    assert len(content(found.payload(7))) == 256
    assert content(found.payload(7)) != content(source("glyphs:50", scratch, resolution=16, channels=1).payload(7))
    assert Image.fromarray(source("glyphs", scratch).payload(1).pixels).mode == "RGB"  # type: ignore[union-attr]
