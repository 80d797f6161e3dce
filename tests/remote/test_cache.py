"""The cache of a node: shared by processes, continued after a kill, bounded, and safe from others."""

import fcntl
import hashlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from fault_server import BODY, Fault, FaultServer, await_that
from hypothesis import given, settings
from hypothesis import strategies as st

from gandist.config import CacheConfig
from gandist.data.remote import cache as cache_module
from gandist.data.remote import https, room
from gandist.data.remote.cache import Cache, Lease, open_cache
from gandist.data.remote.part import CancelledError, Part
from gandist.errors import ConfigError, DataError, MachineError

SHA256 = hashlib.sha256(BODY).hexdigest()


class Reader:
    """A process of lease_once.py, which begins when it is told to."""

    def __init__(self, folder: Path, url: str, *keep: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("lease_once.py")), str(folder), url]
        self.process = subprocess.Popen(
            [*command, str(len(BODY)), SHA256, *keep],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.line() == "ready", self.process.stderr.read()

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        _, complaints = self.process.communicate(timeout=60)
        return self.process.returncode, complaints


def test_six_processes_make_one_request(server: FaultServer, tmp_path: Path) -> None:
    readers = [Reader(tmp_path / "cache", f"{server.url}/x.tar") for _ in range(6)]
    server.faults = [Fault(after=20_000, stall=True)]  # the first is still at it when the others come
    for reader in readers:
        reader.go()
    await_that(lambda: server.sent_bytes == 20_000, "the first half")
    server.go_on.set()
    assert [reader.line() for reader in readers] == [SHA256] * 6
    assert [reader.end() for reader in readers] == [(0, "")] * 6
    assert server.asked == [("/x.tar", None), ("/x.tar", "bytes=20000-")], (
        "the second is the same reader's, after a drop"
    )
    assert server.sent_bytes == len(BODY)


def test_a_killed_download_is_continued_by_another(server: FaultServer, tmp_path: Path) -> None:
    folder, url = tmp_path / "cache", f"{server.url}/x.tar"
    server.faults = [Fault(after=25_000, stall=True)]
    first = Reader(folder, url)
    first.go()
    part = room.beside(Cache(folder, None).path(url), "part")
    await_that(lambda: part.exists() and part.stat().st_size == 25_000, "the first part")
    first.process.kill()
    first.end()
    second = Reader(folder, url)
    second.go()
    assert second.line() == SHA256
    assert second.end() == (0, "")
    assert server.sent_bytes == len(BODY)
    assert server.asked == [("/x.tar", None), ("/x.tar", "bytes=25000-")]


def test_a_killed_process_protects_nothing(server: FaultServer, tmp_path: Path) -> None:
    server.files |= {"/a.tar": BODY, "/b.tar": BODY}
    cache = Cache(tmp_path / "cache", len(BODY))
    reader = Reader(cache.folder, f"{server.url}/a.tar", "keep")
    reader.go()
    assert reader.line() == SHA256
    with pytest.raises(room.NoRoomError):
        cache.lease(f"{server.url}/b.tar", size=len(BODY), beyond=False)
    reader.process.kill()
    reader.end()
    cache.lease(f"{server.url}/b.tar", size=len(BODY), beyond=False).close()
    assert not cache.path(f"{server.url}/a.tar").exists()
    assert cache.notes() == ()


def test_one_name_at_two_places_is_two_files(server: FaultServer, cache: Cache) -> None:
    server.files |= {"/a/0.tar": b"a" * 1000, "/b/0.tar": b"b" * 1000}
    with cache.lease(f"{server.url}/a/0.tar") as a, cache.lease(f"{server.url}/b/0.tar") as b:
        assert (a.path.read_bytes()[:1], b.path.read_bytes()[:1]) == (b"a", b"b")
        assert a.path.name.endswith("-0.tar")


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fetc", "a b;c'\"$(x)\n.tar", "x" * 5000, ""])
def test_names_stay_in_the_folder(cache: Cache, name: str) -> None:
    path = cache.path(f"https://host/{name}")
    assert path.parent == cache.folder
    assert room._NAME.fullmatch(path.name)
    assert len(path.name) < 120


def test_another_file_of_the_same_size_is_not_taken_for_it(server: FaultServer, cache: Cache) -> None:
    """A set that is prepared again often has shards of the same names and sizes."""
    url, other = f"{server.url}/x.tar", bytes(len(BODY))
    cache.lease(url, size=len(BODY), sha256=SHA256).close()
    server.files["/x.tar"] = other
    with cache.lease(url, size=len(BODY), sha256=hashlib.sha256(other).hexdigest()) as lease:
        assert lease.path.read_bytes() == other
    room.beside(cache.path(url), "sha256").unlink()
    with cache.lease(url, size=len(BODY), sha256=hashlib.sha256(other).hexdigest()) as lease:
        assert lease.path.read_bytes() == other
    assert len(server.asked) == 2, "a lost record is mended without another download"


def test_a_shard_of_another_size_is_fetched_again(server: FaultServer, cache: Cache) -> None:
    url = f"{server.url}/x.tar"
    cache.lease(url, size=len(BODY)).close()
    cache.path(url).write_bytes(BODY[:-1])
    with cache.lease(url, size=len(BODY)) as lease:
        assert lease.path.read_bytes() == BODY


def test_it_travels_to_other_processes(cache: Cache, server: FaultServer) -> None:
    copy = pickle.loads(ForkingPickler.dumps(cache))  # noqa: S301 - as multiprocessing does with what we sent
    with copy.lease(f"{server.url}/x.tar") as lease:
        assert lease.path.parent == cache.folder


def test_a_download_that_nobody_wants_stops(server: FaultServer, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(https, "CHUNK_BYTES", 1000)
    write = Part.write

    def stopping(part: Part, data: bytes) -> None:
        write(part, data)
        stop.set()

    monkeypatch.setattr(Part, "write", stopping)
    with pytest.raises(CancelledError):
        cache.lease(f"{server.url}/x.tar", size=len(BODY), stop=stop)
    monkeypatch.undo()
    with cache.lease(f"{server.url}/x.tar", size=len(BODY)) as lease:
        assert lease.path.read_bytes() == BODY
    assert server.asked[1][1] is not None, "what had arrived was kept"


def test_who_waits_for_a_lock_can_stop_too(cache: Cache, server: FaultServer) -> None:
    cache.folder.mkdir(mode=0o700)
    stop = threading.Event()
    with room.locked(room.beside(cache.path(f"{server.url}/x.tar"), "lock")):
        threading.Timer(0.05, stop.set).start()
        with pytest.raises(CancelledError):
            cache.lease(f"{server.url}/x.tar", stop=stop)
    assert server.asked == []


def test_a_lock_on_a_file_that_is_gone_is_no_lock(tmp_path: Path) -> None:
    """Or two could hold a lock, or a lease be on a shard that was evicted between its opening and its locking."""
    path = tmp_path / "x"
    path.write_text("old")
    descriptor = os.open(path, os.O_RDWR)
    assert room.grab(descriptor, path, fcntl.LOCK_SH)
    path.unlink()
    assert not room.grab(descriptor, path, fcntl.LOCK_SH)
    path.write_text("new")
    assert not room.grab(descriptor, path, fcntl.LOCK_SH)
    os.close(descriptor)


def test_a_lock_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside: list[str] = []
    second = threading.Thread(target=lambda: _note_under(path, inside))
    with room.locked(path):
        second.start()
        path.unlink()
        with room.locked(path):
            pass
    second.join()
    assert inside == ["second"]


def _note_under(path: Path, inside: list[str]) -> None:
    with room.locked(path):
        inside.append("second")


# --- the bound ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> Iterator[FaultServer]:
    files = {f"/{n}.tar": bytes([n]) * (1000 + 100 * n) for n in range(8)}
    with FaultServer(files).running() as server:
        yield server


def held_bytes(cache: Cache) -> int:
    return sum(path.stat().st_size for path in cache.folder.iterdir() if room._NAME.fullmatch(path.name))


STEPS = st.lists(
    st.one_of(st.tuples(st.just("lease"), st.integers(0, 7)), st.tuples(st.just("close"), st.integers(0, 7)))
)


@given(STEPS, st.integers(1000, 8000))
@settings(max_examples=60)
def test_leased_shards_stay_and_the_bound_holds(
    many: FaultServer, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], limit: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), limit)
    leases: dict[int, Lease] = {}
    for step, n in steps:
        if step == "close" and n in leases:
            leases.pop(n).close()
        elif step == "lease" and n not in leases:
            leased = sum(1000 + 100 * m for m in leases)
            try:
                leases[n] = cache.lease(f"{many.url}/{n}.tar", size=1000 + 100 * n, beyond=False)
            except room.NoRoomError:
                assert leased + 1000 + 100 * n > limit, "there would have been room"
        assert held_bytes(cache) <= limit
        for m, lease in leases.items():
            assert lease.path.read_bytes() == many.files[f"/{m}.tar"]
    for lease in leases.values():
        lease.close()


def test_the_one_that_was_used_longest_ago_goes(many: FaultServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 3400)

    def use(n: int) -> None:
        cache.lease(f"{many.url}/{n}.tar", size=1000 + 100 * n).close()

    def age() -> None:
        for path in cache.folder.iterdir():
            os.utime(path, ns=(path.stat().st_mtime_ns - 10**9,) * 2)

    for n in (0, 1, 2, 0):
        use(n)
        age()
    use(3)
    kept = {int(path.read_bytes()[0]) for path in cache.folder.iterdir() if room._NAME.fullmatch(path.name)}
    assert kept == {0, 3}, "1 and 2 went, to make room for 1300 bytes"
    names = {path.name for path in cache.folder.iterdir() if path.name.endswith((".lock", ".sha256"))}
    assert len(names) == 2 * 2 + 1, "what goes takes its side files along"


def test_the_bound_gives_way_to_a_reader_and_says_so_once(many: FaultServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 2000)
    with cache.lease(f"{many.url}/0.tar", size=1000), cache.lease(f"{many.url}/1.tar", size=1100):
        with cache.lease(f"{many.url}/2.tar", size=1200):
            assert held_bytes(cache) == 3300
        (note,) = cache.notes()
        assert "execution.cache.gb 2e-06" in note
        assert cache.notes() == ()
    cache.lease(f"{many.url}/3.tar", size=1300).close()
    assert held_bytes(cache) <= 2000, "room is made again as soon as there is any"


def test_what_arrives_counts_with_its_whole_length(many: FaultServer, tmp_path: Path) -> None:
    """Two that arrive at once must not count on the same room."""
    cache = Cache(tmp_path / "cache", 2500)
    cache.folder.mkdir(mode=0o700)
    path = cache.path(f"{many.url}/7.tar")
    room.beside(path, "part").write_bytes(b"x" * 10)
    with room.locked(room.beside(path, "lock")) as lock:
        assert room.make_room(path, lock, 1700, 2500, beyond=False)
        (entry,) = room.entries(cache.folder)
        assert (entry.bytes, entry.missing_bytes) == (1700, 1690)
        with pytest.raises(room.NoRoomError):
            cache.lease(f"{many.url}/0.tar", size=1000, beyond=False)
    (entry,) = room.entries(cache.folder)
    assert (entry.bytes, entry.missing_bytes) == (10, 0), "nobody fetches it any more"
    cache.lease(f"{many.url}/0.tar", size=1000, beyond=False).close()
    assert room.beside(path, "part").exists(), "it may still be continued"
    cache.lease(f"{many.url}/5.tar", size=1500, beyond=False).close()
    assert not room.beside(path, "part").exists(), "until the room is needed"


def test_other_files_in_the_folder_are_left_alone(many: FaultServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000)
    cache.folder.mkdir(mode=0o700)
    mine = cache.folder / "thesis.tar"
    mine.write_bytes(bytes(100_000))
    cache.lease(f"{many.url}/0.tar", size=1000, beyond=False).close()
    assert mine.exists()


def test_a_shard_that_was_evicted_is_fetched_again_and_its_readers_go_on(many: FaultServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1300)
    with cache.lease(f"{many.url}/0.tar", size=1000) as lease:
        descriptor = os.open(lease.path, os.O_RDONLY)
    cache.lease(f"{many.url}/1.tar", size=1100).close()
    assert not lease.path.exists()
    assert os.pread(descriptor, 2000, 0) == many.files["/0.tar"]
    os.close(descriptor)
    with cache.lease(f"{many.url}/0.tar", size=1000) as lease:
        assert lease.path.read_bytes() == many.files["/0.tar"]


def test_racing_threads_never_lose_a_leased_shard(many: FaultServer, tmp_path: Path) -> None:
    """Room for two, wanted by six at once: what is leased must be there, whole, at every moment."""
    wrong: list[object] = []

    def work(seed: int) -> None:
        cache = Cache(tmp_path / "cache", 2500)
        for turn in range(25):
            n = (seed * 7 + turn * 3) % 8
            try:
                with cache.lease(f"{many.url}/{n}.tar", size=1000 + 100 * n) as lease:
                    if lease.path.read_bytes() != many.files[f"/{n}.tar"]:
                        wrong.append(n)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- the disk and the folder -------------------------------------------------------------------------------


def test_a_full_disk_is_said_with_figures(many: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache", None)
    cache.lease(f"{many.url}/0.tar", size=1000).close()
    monkeypatch.setattr(
        room, "free_bytes", lambda _: 3_000_000 if cache.path(f"{many.url}/0.tar").exists() else 4_000_000
    )
    with pytest.raises(
        MachineError, match=r"the disk has 4\.0 MB free.* needs 900\.0 MB more.*--execution\.cache\.dir"
    ):
        cache.lease(f"{many.url}/1.tar", size=900_000_000)
    assert not cache.path(f"{many.url}/0.tar").exists(), "what nobody used went first"


def test_a_disk_that_takes_no_more_is_the_machines_fault(server: FaultServer, tmp_path: Path) -> None:
    """A file size limit stands in for a full disk."""
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom gandist.data.remote.cache import Cache\n"
        "from gandist.errors import MachineError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n    Cache(Path(sys.argv[1]), None).lease(sys.argv[2])\nexcept MachineError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), f"{server.url}/x.tar"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "cannot be kept on this machine (File too large) after 9000 bytes" in ran.stdout


def test_the_folder_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep" / "cache"
    assert open_cache(CacheConfig(dir=folder)).folder == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(MachineError, match="others may write there"):
        open_cache(CacheConfig(dir=folder))
    folder.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(MachineError, match="is a link"):
        open_cache(CacheConfig(dir=link))
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(MachineError, match="belongs to another user"):
        open_cache(CacheConfig(dir=folder))


def test_the_folder_is_below_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module.tempfile, "gettempdir", lambda: str(tmp_path))
    cache = open_cache(CacheConfig(gb=1.5))
    assert cache.folder.parent == tmp_path
    assert cache.folder.name.startswith("gandist-")
    assert (cache.limit_bytes, cache.capacity_bytes()) == (1_500_000_000, 1_500_000_000)


def test_only_accepted_urls_reach_the_network(cache: Cache) -> None:
    for url in ("http://example.org/x.tar", "ftp://example.org/x.tar", "s3://key:secret@bucket/x.tar"):
        with pytest.raises(ConfigError) as caught:
            cache.lease(url)
        assert "secret" not in str(caught.value)


def test_a_missing_file_leaves_nothing_that_counts(server: FaultServer, cache: Cache) -> None:
    with pytest.raises(DataError):
        cache.lease(f"{server.url}/nowhere.tar", size=100)
    assert [entry.bytes for entry in room.entries(cache.folder)] in ([], [0])
