"""Each file in launch/ starts what its head comment says, by the very command that stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch").glob("*.yaml"))

SHOW_PLACE = """\
import json, os, sys
keys = ("RANK", "WORLD_SIZE", "MASTER_PORT", "ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE")
with open(f"{sys.argv[1]}/{os.environ.get('RANK', '0')}", "w") as file:
    json.dump({key: os.environ.get(key) for key in keys}, file)
"""

ADD_UP = """\
import sys
import torch
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
total = accelerator.reduce(torch.tensor([accelerator.process_index + 1.0]))
with open(f"{sys.argv[1]}/{accelerator.process_index}", "w") as file:
    file.write(f"{accelerator.num_processes} {total.item():g}")
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def command_in(file):
    """Return the words of the command in a launch file's head comment, up to the trainer."""
    lines = re.findall(r"^#   (accelerate launch .*)$", file.read_text(), flags=re.MULTILINE)
    assert len(lines) == 1
    words = shlex.split(lines[0])
    return words[: words.index("train.py")]


def start(words, program, folder):
    script = folder / "program.py"
    script.write_text(program)
    (folder / "out").mkdir(exist_ok=True)
    accelerate, *rest = words
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    return subprocess.Popen(
        [Path(sys.executable).parent / accelerate, *rest, script, folder / "out"], cwd=ROOT,
        env={**env, "OMP_NUM_THREADS": "1"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(*launchers):
    printed = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0] * len(launchers), "\n".join(printed)


def places(folder):
    return [json.loads(file.read_text()) for file in sorted((folder / "out").iterdir())]


def with_values(words, **values):
    """Return ``words`` with other values for some of their flags."""
    changed = list(words)
    for flag, value in values.items():
        changed[changed.index(f"--{flag}") + 1] = value
    return changed


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_command_in_the_head_names_its_own_file(file):
    words = command_in(file)
    assert words[words.index("--config_file") + 1] == f"launch/{file.name}"
    assert yaml.safe_load(file.read_text())["compute_environment"] == "LOCAL_MACHINE"


def test_cpu_starts_two_ranks_that_reach_each_other(tmp_path):
    finish(start(command_in(ROOT / "launch/cpu.yaml"), ADD_UP, tmp_path))
    assert sorted(file.read_text() for file in (tmp_path / "out").iterdir()) == ["2 3", "2 3"]


@pytest.mark.parametrize(("name", "cpu", "debug"), [("debug", "True", "true"), ("one_gpu", "False", None)])
def test_a_single_process(tmp_path, name, cpu, debug):
    finish(start(command_in(ROOT / f"launch/{name}.yaml"), SHOW_PLACE, tmp_path))
    (place,) = places(tmp_path)
    assert place["RANK"] is None
    assert (place["ACCELERATE_USE_CPU"], place["ACCELERATE_DEBUG_MODE"]) == (cpu, debug)


def test_one_node_takes_its_ranks_from_the_command_line_and_a_free_port(tmp_path):
    words = command_in(ROOT / "launch/one_node.yaml")
    finish(start(with_values(words, num_processes="3"), SHOW_PLACE, tmp_path))
    assert [(place["RANK"], place["WORLD_SIZE"]) for place in places(tmp_path)] == [(str(i), "3") for i in range(3)]
    assert {place["MASTER_PORT"] for place in places(tmp_path)} != {"29500"}


def test_many_nodes_rank_by_node(tmp_path):
    words = command_in(ROOT / "launch/many_nodes.yaml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launchers = []
    for node in ("1", "0"):  # the order in which nodes come up does not matter
        (tmp_path / node).mkdir()
        values = {"machine_rank": node, "num_processes": "4", "main_process_ip": "127.0.0.1", "main_process_port": port}
        launchers.append(start(with_values(words, **values), SHOW_PLACE, tmp_path / node))
    finish(*launchers)
    ranks = {node: [place["RANK"] for place in places(tmp_path / node)] for node in ("0", "1")}
    assert ranks == {"0": ["0", "1"], "1": ["2", "3"]}
