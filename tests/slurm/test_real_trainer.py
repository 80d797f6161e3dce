"""gandist itself as a Slurm job: two nodes, interrupted and continued, end where an undisturbed run ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cluster import wait_until
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
ROUNDS, BATCH = 60, 32
TINY = [
    "--run.name", "tiny", "--run.total_kimg", str(ROUNDS * BATCH / 1000), "--update.batch_images", str(BATCH),
    "--data.resolution", "16", "--model.dcgan.generator_channels", "8", "--model.dcgan.discriminator_channels", "8",
    "--execution.device", "cpu", "--execution.precision", "fp32", "--execution.workers", "0",
    "--tracking.every_kimg", "0.1", "--samples.every_kimg", "1000",
]  # fmt: skip


@pytest.fixture
def checkout_with_gandist(checkout):
    """A checkout with the real trainer, launcher and command line."""
    shutil.rmtree(checkout.folder / "bin")
    shutil.copy(ROOT / "train.py", checkout.folder)
    shutil.copytree(ROOT / "configs", checkout.folder / "configs")
    return checkout


def rows(folder):
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def final_weights(folder):
    checkpoint = folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text().strip()
    return {name: load_file(checkpoint / f"{name}.safetensors") for name in ("generator", "discriminator", "ema")}


@pytest.mark.long
def test_a_run_interrupted_on_two_nodes_ends_where_an_undisturbed_one_ends(checkout_with_gandist):
    checkout, folder = checkout_with_gandist, checkout_with_gandist.folder / "runs" / "tiny"
    job = checkout.train("configs/demo.yaml", *TINY, GANDIST_GRACE_SECONDS="60", OMP_NUM_THREADS="1")
    wait_until(lambda: rows(folder) or not job.lives(), 90, job.describe)
    job.signal_batch_shell("USR1")
    job.wait_for_line("saved: back to the queue", 90)
    job.wait_for("COMPLETED", 120)
    assert job.field("Restarts") == "1"
    seen = [row["images_seen"] for row in rows(folder)]
    assert seen == sorted(set(seen)), "a row is lost or written twice"
    assert seen[-1] == ROUNDS * BATCH

    undisturbed = final_weights(train_undisturbed(checkout.folder))
    for network, tensors in final_weights(folder).items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, undisturbed[network][name], rtol=1e-5, atol=1e-6)


def train_undisturbed(checkout):
    """Train the same with two processes of this machine; return the run folder."""
    command = ["accelerate", "launch", "--config_file", "launch/cpu.yaml", "train.py", "configs/demo.yaml", *TINY]
    subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:], "--run.root", "undisturbed"],
        cwd=checkout, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=200,
    )  # fmt: skip
    return checkout / "undisturbed" / "tiny"
