"""``gandist index`` as a command: words and exit codes, a folder that is indexed already, shards from afar."""

import contextlib
import functools
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import damage, surveyed
from pictures import everything_under

from gandist import cli
from gandist.data.shards.index_files import INDEX_NAME
from gandist.data.survey.locate import locate
from gandist.errors import UserError

# --- a set that is indexed already -------------------------------------------------------------------------


def ran(*words: object) -> tuple[int, str, str]:
    """The exit code, what was printed, and what was complained of."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["index", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


def test_verify_compares_an_indexed_folder_with_its_index(three: Path) -> None:
    assert ran(three)[0] == 0
    code, out, _ = ran(three, "--verify")
    assert code == 0
    assert "all 3 shard(s) are what was indexed: sizes and SHA-256 agree; 15 images" in out
    before = everything_under(three)
    raw = bytearray(before["000.tar"])
    raw[600] ^= 1
    (three / "000.tar").write_bytes(raw)
    os.truncate(three / "001.tar", 512)
    (three / "002.tar").unlink()
    changed = everything_under(three)
    code, out, err = ran(three, "--verify")
    assert (code, out) == (2, "")
    assert "3 of 3 shard(s) are not what was indexed" in err
    assert "000.tar: its SHA-256 is" in err
    assert "001.tar: has 512 bytes, the index recorded 20480" in err
    assert "002.tar: cannot be read (No such file or directory)" in err
    assert everything_under(three) == changed


# --- the command line --------------------------------------------------------------------------------------


def test_the_verb_prints_a_command_that_trains(three: Path, tmp_path: Path) -> None:
    code, out, err = ran(three, "--out", tmp_path / "apart")
    assert (code, err) == (0, "")
    command = out.strip().rpartition("next: gandist ")[2].split()
    assert command[0] == "train"
    run = subprocess.run(
        [sys.executable, "-m", "gandist.cli", *command, "--debug"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_the_verb_complains_in_words_and_with_code_2(three: Path, tmp_path: Path) -> None:
    damage(three)
    code, out, err = ran(three)
    assert (code, out) == (2, "")
    assert err.startswith("gandist: 2 of 3 shard(s) cannot be indexed")
    assert ran(tmp_path / "nowhere")[0] == 2
    assert ran(three, "--label", "json")[0] == 2
    assert not (three / INDEX_NAME).exists()
    with pytest.raises(SystemExit) as caught:
        ran(three, "--resolution", "0")
    assert caught.value.code == 2
    assert ran(three, "--salvage")[0] == 0


def test_help_fits_a_screen() -> None:
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stdout(io.StringIO()) as out:
        cli.main(["index", "--help"])
    assert caught.value.code == 0
    assert 20 < len(out.getvalue().splitlines()) <= 45


# --- shards from afar --------------------------------------------------------------------------------------


@pytest.fixture
def served(three: Path) -> Iterator[str]:
    """The url of the three shards on a server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(three)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_shards_from_afar(served: str, three: Path, tmp_path: Path) -> None:
    code, out, err = ran(
        f"{served}/{{000..002}}.tar", "--out", tmp_path / "i", "--cache-dir", tmp_path / "cache", "--workers", 0
    )
    assert (code, err) == (0, "")
    assert f"--data.shards {tmp_path}/i --data.root {served} --data.allow_http true --data.resolution 8" in out
    here = surveyed(three, out=tmp_path / "here").index
    content = json.loads((tmp_path / "i" / INDEX_NAME).read_text())
    assert [entry["url"] for entry in content["shards"]] == ["000.tar", "001.tar", "002.tar"]
    assert everything_under(tmp_path / "i") == everything_under(tmp_path / "here")
    assert here.samples == 15


def test_the_root_is_what_all_addresses_share(three: Path, tmp_path: Path) -> None:
    lot = locate(["https://h.example/a/x/{1..2}.tar", "https://h.example/a/x2/1.tar"], tmp_path, allow_http=False)
    assert (lot.root, lot.urls) == ("https://h.example/a", ("x/1.tar", "x/2.tar", "x2/1.tar"))
    assert [lot.address(url) for url in lot.urls][2] == "https://h.example/a/x2/1.tar"
    lot = locate(["s3://bucket/1.tar", "s3://bucket/b/1.tar"], tmp_path, allow_http=False)
    assert (lot.root, lot.urls, lot.remote, lot.apart) == ("s3://bucket", ("1.tar", "b/1.tar"), True, True)
    (three / "a:b.tar").write_bytes(b"")
    for patterns, complaint in (
        (["https://h.example/1.tar", "https://i.example/1.tar"], "on different hosts"),
        (["https://h.example/1.tar", str(three)], "Some shards lie on this machine and some do not"),
        (["https://h.example/1.tar?X-Signature=secret"], "an address with a query"),
        ([str(three)], r"a:b\.tar: an index cannot name a shard with"),
        (["https://h.example/a/{1..2}.tar", "https://h.example/a/2.tar"], r"a/2\.tar: is named 2 times"),
    ):
        with pytest.raises(UserError, match=complaint) as caught:
            locate(patterns, tmp_path, allow_http=False)
        assert "secret" not in str(caught.value)


def test_damage_from_afar_is_named_by_its_url(served: str, three: Path, tmp_path: Path) -> None:
    damage(three)
    words = (f"{served}/{{000..003}}.tar", "--cache-dir", tmp_path / "cache", "--workers", 0)
    code, _, err = ran(*words)
    assert code == 2
    assert "the index cannot be written there. Say where it should go: --out FOLDER" in err
    code, _, err = ran(*words, "--out", tmp_path / "i")
    assert code == 2
    assert "3 of 4 shard(s) cannot be indexed" in err
    assert f"{served}/000.tar: damaged at byte 4608" in err
    assert f"{served}/003.tar: there is no such file (404" in err
    assert not (tmp_path / "i").exists()
