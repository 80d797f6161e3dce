"""A secret in the environment of ``sbatch`` reaches the trainer, and nothing that a run leaves behind."""

from __future__ import annotations

import os

import pytest
from cluster import wait_until
from real_runs import SECRETS

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
KINDS = (
    "generator.safetensors", "state.json", "manifest.json", "latest", "config.yaml", "events.log", "metrics.jsonl",
    "status.json", "lease.json", "wandb_run_id", ".wandb", "debug.log", ".png",
)  # fmt: skip


def holders(contents, words):
    """Return the names of the texts and files that hold one of the words."""
    return [name for name, content in contents.items() if any(word.encode() in content for word in words)]


def test_no_artefact_of_a_run_holds_a_secret(undisturbed_job, undisturbed):
    job, folder = undisturbed_job, undisturbed
    completed = job.cluster.folder / "log" / "jobcomp.txt"
    wait_until(lambda: f"JobId={job.id} " in completed.read_text(), 30, completed.read_text)
    files = [path for path in [*folder.rglob("*"), job.output, completed] if path.is_file()]
    contents = {str(path): path.read_bytes() for path in files}
    contents["the job's record"] = job.cluster.run("scontrol", "show", "job", "-d", job.id).encode()
    contents["the batch script"] = job.cluster.run("scontrol", "write", "batch_script", job.id, "-").encode()
    for kind in KINDS:
        assert any(name.endswith(kind) for name in contents), f"the run left no {kind}: is this test still looking?"
    assert holders(contents, SECRETS.values()) == []
    assert any(name.endswith(".wandb") for name in holders(contents, ["non_saturating"])), "written so that it is seen"


def test_the_secrets_were_there(checkout, tmp_path):
    """The environment that was searched for in vain above does reach a job."""
    (checkout.folder / "bin" / "gandist").write_text("#!/bin/bash\nenv -0 >environment\n")
    checkout.prepare(**SECRETS).wait_for("COMPLETED")
    found = (checkout.folder / "environment").read_text().split("\0")
    assert {f"{name}={value}" for name, value in SECRETS.items()} <= set(found)
    assert os.environ.get("MY_SECRET_TOKEN") is None
