"""The same samples, written into a shard by every program that people use."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

Sample = tuple[str, dict[str, bytes]]
"""Key, and content by field."""

Writer = Callable[[Path, Sequence[Sample]], None]


def members(samples: Sequence[Sample]) -> list[tuple[str, bytes]]:
    return [(f"{key}.{field}", content) for key, fields in samples for field, content in fields.items()]


def _tar_writer(**options: object) -> Writer:
    def write(path: Path, samples: Sequence[Sample]) -> None:
        with webdataset.TarWriter(str(path), encoder=False, **options) as sink:
            for key, fields in samples:
                sink.write({"__key__": key, **fields})

    return write


def _shard_writer(path: Path, samples: Sequence[Sample]) -> None:
    pattern = str(path.with_name(f"{path.stem}.part%d"))
    with webdataset.ShardWriter(pattern, encoder=False, verbose=0, mtime=0) as sink:
        for key, fields in samples:
            sink.write({"__key__": key, **fields})
    path.with_name(f"{path.stem}.part0").rename(path)


def _python(kind: int) -> Writer:
    def write(path: Path, samples: Sequence[Sample]) -> None:
        with tarfile.open(path, "w", format=kind, encoding="utf-8") as archive:
            for name, content in members(samples):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return write


def _program(kind: str) -> Writer:
    def write(path: Path, samples: Sequence[Sample]) -> None:
        folder = path.with_name(f"{path.stem}.files")
        for name, content in members(samples):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        names = [name for name, _ in members(samples)]
        command = ["tar", "-c", "-f", str(path.absolute()), f"--format={kind}", "-C", str(folder), "--", *names]
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(folder)

    return write


def _tarp(path: Path, samples: Sequence[Sample]) -> None:
    """As `tar cf x.tar ./folder` does it: every name begins with ./, and folders are members too."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        seen = set()
        for name, content in [("", b""), *members(samples)]:
            for folder in [f"./{parent}" for parent in reversed(Path(name).parents)]:
                if folder not in seen:
                    info = tarfile.TarInfo(folder)
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
                    seen.add(folder)
            if name:
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


WRITERS: dict[str, Writer] = {
    "webdataset TarWriter": _tar_writer(),
    "webdataset TarWriter, mtime=0": _tar_writer(mtime=0),
    "webdataset ShardWriter": _shard_writer,
    "tarfile ustar": _python(tarfile.USTAR_FORMAT),
    "tarfile gnu": _python(tarfile.GNU_FORMAT),
    "tarfile pax": _python(tarfile.PAX_FORMAT),
    "tar ustar": _program("ustar"),
    "tar gnu": _program("gnu"),
    "tar pax": _program("pax"),
    "tar with ./ and folders": _tarp,
}


def as_webdataset_reads(path: Path) -> list[Sample]:
    """The samples as webdataset's own stages read them, with the fields in their order."""
    with path.open("rb") as stream:
        read = list(group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])))
    own = ("__key__", "__url__", "__local_path__")
    return [(sample["__key__"], {f: body for f, body in sample.items() if f not in own}) for sample in read]
