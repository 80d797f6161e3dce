"""The doctor on both nodes of a real Slurm job, by the command that stands in docs/doctor.md."""

import json
import re
import sys
from pathlib import Path

import pytest
from cluster import Cluster, wait_until

ROOT = Path(__file__).parents[2]
TINY = {
    "run": {"name": "tiny", "total_kimg": 1e6},
    "data": {"shards": "glyphs", "resolution": 8, "channels": 1},
    "model": {"arch": "mlp", "latent_dim": 8, "mlp": {"generator_widths": [16], "discriminator_widths": [16]}},
    "update": {"batch_images": 16},
    "execution": {"workers": 0, "precision": "fp32", "threads": 1, "device": "cpu"},
}


def command_of_the_docs() -> str:
    """Return the lines from `export RANKS` on, for one rank on each node."""
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    found = re.search(r"^(export RANKS=.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].replace("RANKS=8", "RANKS=1")


@pytest.mark.long
def test_the_doctor_looks_at_all_nodes_and_at_the_time_limit(cluster: Cluster, tmp_path: Path) -> None:
    recipe, script = tmp_path / "tiny.yaml", tmp_path / "job.sh"
    recipe.write_text(json.dumps(TINY))
    command = command_of_the_docs().replace("CONFIG", f"{recipe} --seconds 1 --json --run.root {tmp_path}/runs")
    # both nodes are this machine: their names do not resolve
    command = re.sub(r"MAIN=\$\(.*\)", "MAIN=127.0.0.1", command)
    setting = f"cd {ROOT}\nexport PATH={Path(sys.executable).parent}:$PATH GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1\n"
    notice = "export ACCELERATE_USE_CPU=true GANDIST_NOTICE_SECONDS=590\n"
    script.write_text(f"#!/bin/bash\n{setting}{notice}{command}")
    job = cluster.submit(str(script), cwd=tmp_path, options=("--nodes=2", "--ntasks-per-node=1", "--time=10"))
    wait_until(lambda: not job.lives(), 280, job.printed)
    printed = job.printed()
    told = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
    found = {one["check"]: (one["level"], one["fact"]) for one in told["findings"]}
    assert found["job"][0] == "ok", printed
    assert "on 2 nodes" in found["job"][1]
    assert "10 min long" in found["job"][1]
    assert found["ranks"][1].startswith("2 ranks on")
    assert found["notice"][0] == "ok", "590 seconds are enough for a save"
    assert found["time limit"][0] == "warn", "and leave little of ten minutes"
    assert found["exact resume"][0] == "ok"
    assert not (tmp_path / "runs").exists()
