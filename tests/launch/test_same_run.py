"""torchrun and accelerate start the same run; a launcher that starts too few ranks is caught by the trainer."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """\
run: {name: tiny, total_kimg: 0.064}
data: {shards: glyphs, resolution: 8, channels: 1}
model: {arch: dcgan, latent_dim: 4, dcgan: {generator_channels: 2, discriminator_channels: 2}}
regularizer: {r1: {gamma: 0.1}}
update: {batch_images: 16}
samples: {rows: 1, columns: 1}
execution: {workers: 0, precision: fp32, threads: 1}
"""
TORCHRUN = ["torchrun", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = ["accelerate", "launch", "--config_file", "launch/cpu.yaml"]
TOO_FEW = {
    "on one node": "--num_processes 2",
    "on two nodes": "--num_machines 2 --num_processes 4 --machine_rank 0 "
    "--main_process_ip 127.0.0.1 --main_process_port 29500",
}


def train(launcher: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(RECIPE)
    program, *flags = launcher
    command = [Path(sys.executable).parent / program, *flags, "train.py", folder / "tiny.yaml"]
    settings = ["--run.root", folder, "--execution.device", "cpu"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *settings], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=240, check=False,
    )  # fmt: skip


def ended(folder: Path) -> tuple[int, dict[str, str]]:
    """Return the number of ranks that the checkpoint was made with, and the digests of its tensors."""
    newest = folder / "tiny" / "checkpoints" / "000000064"
    made_with = json.loads((newest / "state.json").read_text())["made_with"]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in newest.glob("*.safetensors")}
    return made_with["world_size"], digests


@pytest.mark.long
def test_torchrun_and_accelerate_start_the_same_run_of_two_ranks(tmp_path: Path) -> None:
    ends = []
    for name, launcher in {"torchrun": TORCHRUN, "accelerate": ACCELERATE}.items():
        done = train(launcher, tmp_path / name)
        assert done.returncode == 0, done.stdout
        ends.append(ended(tmp_path / name))
    assert ends[0] == ends[1]
    assert ends[0][0] == 2
    assert len(ends[0][1]) == 5


@pytest.mark.long
@pytest.mark.parametrize("case", TOO_FEW)
def test_a_launcher_that_starts_one_process_where_more_were_asked_for_is_an_error(case: str, tmp_path: Path) -> None:
    """On CPUs accelerate starts one process, whatever the number, and tells it nothing of the others."""
    flags = TOO_FEW[case].split()
    done = train(["accelerate", "launch", "--cpu", *flags], tmp_path / "run")
    assert done.returncode == 1, done.stdout
    asked = flags[flags.index("--num_processes") + 1]
    assert f"--num_processes={asked} ranks were launched, but this process is one of 1" in done.stdout
    assert "launch/cpu.yaml" in done.stdout
    assert not (tmp_path / "run" / "tiny").exists()
