"""A run folder holds nothing that reading could execute: safetensors, JSON, text and pictures."""

from __future__ import annotations

import pickletools
from pathlib import Path

from trainer_runs import make_config, play

KINDS = {".safetensors", ".json", ".jsonl", ".yaml", ".log", ".png", ""}
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def is_pickle(content: bytes) -> bool:
    try:
        return any(code.name == "STOP" for code, _, _ in pickletools.genops(content))
    except Exception:
        return False


def test_a_run_folder_holds_no_pickle(tmp_path: Path) -> None:
    folder = play(make_config(tmp_path)).folder
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"ema.safetensors", "optimizer_d.safetensors", "state.json", "metrics.jsonl"} <= {f.name for f in files}
    for path in files:
        content = path.read_bytes()
        assert path.suffix in KINDS, path
        assert not content.startswith(ARCHIVES), path
        assert not is_pickle(content), path


def test_the_check_knows_a_pickle() -> None:
    import pickle

    assert is_pickle(pickle.dumps({"weights": [1.0, 2.0]}))
    assert is_pickle(pickle.dumps({"weights": 1}, protocol=0))
    assert not is_pickle(b'{"a": 1}')
