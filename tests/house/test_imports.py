"""Who imports whom: the picture of the package, and the one door of each third-party library."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gandist"

# Imports run strictly downward here, from a row to rows below it. Within a wing, modules import each other freely.
PICTURE = [
    {"__main__"},
    {"cli"},
    {"debug", "doctor", "fitting", "supervise"},
    {"trainer"},
    {"assembly", "averages", "continuity", "feed"},
    {"faults"},
    {"data", "evaluation", "adversarial"},
    {"latents"},
    {"runtime", "models"},
    {"config"},
    {"errors"},
]
ROW = {unit: number for number, row in enumerate(PICTURE) for unit in row}

# A library, and the only units or files that may import it.
DOORS = {
    "accelerate": {"assembly"},
    "wandb": {"runtime/wandb_run.py"},
    "safetensors": {"runtime/checkpoint.py", "data/shards/index_files.py"},
    "yaml": {"config", "cli.py"},
    "pydantic": {"config", "cli.py"},
    "pydantic_core": {"config", "cli.py"},
    "tyro": {"config", "cli.py"},
    "webdataset": {"data"},
    "fsspec": {"data/remote/object_store.py"},
    "diffusers": {"latents/autoencoder.py"},
    "simplejpeg": {"data/decode.py"},
    "tensorboard": {"runtime/tracking.py"},
    "torch.utils.tensorboard": {"runtime/tracking.py"},
}

# Libraries whose files or calls can run code that came with the data.
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
UNSAFE_CALLS = {("torch", "load"), ("torch", "save"), ("torch.jit", "load"), ("torch.package", "PackageImporter")}
UNSAFE_METHODS = {"save_state", "load_state"}  # Accelerate's, which pickle


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    at_load: bool
    """Whether it runs when the module is loaded; False inside a function."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """Return the wing of a file, or its own name where it stands beside the wings."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    inside = {
        id(child)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree_of(path)):
        at_load = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of what is imported"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / full.replace(".", "/")).with_suffix(".py").is_file()
                yield Import(full if is_module else str(node.module), node.lineno, at_load)


def test_every_unit_has_its_place_in_the_picture() -> None:
    units = {unit(path) for path in modules()} - {"__init__"}
    assert units <= set(ROW), f"{sorted(units - set(ROW))}: find these their row in PICTURE"


def test_imports_run_strictly_downward() -> None:
    wrong = []
    for path in modules():
        for found in imports(path):
            parts = found.target.split(".")
            if parts[0] != "gandist" or len(parts) == 1 or parts[1] == unit(path):
                continue
            if ROW[parts[1]] <= ROW[unit(path)]:
                wrong.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.target}")
    assert not wrong, "these imports do not run downward:\n" + "\n".join(wrong)


def test_no_modules_load_each_other_in_a_circle() -> None:
    graph = {name_of(p): {i.target for i in imports(p) if i.at_load and i.target != name_of(p)} for p in modules()}
    done: set[str] = set()

    def visit(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, " -> ".join([*chain, name])
        if name in done or name not in graph:
            return
        for target in sorted(graph[name]):
            visit(target, (*chain, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    wrong = []
    for path in modules():
        inside = path.relative_to(PACKAGE).as_posix()
        allowed = {inside, unit(path)} & DOORS[library]
        for found in imports(path):
            if f"{found.target}.".startswith(f"{library}.") and not allowed:
                wrong.append(f"gandist/{inside}:{found.line} imports {found.target}")
    assert not wrong, f"{library} has its door in {sorted(DOORS[library])}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("wing", ["adversarial", "models"])
def test_the_method_and_the_networks_know_torch_alone(wing: str) -> None:
    ours = {"gandist.config", "gandist.errors", "gandist.models", "gandist.adversarial"}
    for path in (PACKAGE / wing).rglob("*.py"):
        for found in imports(path):
            first, second = [*found.target.split("."), ""][:2]
            known = first in {"torch", "jaxtyping"} | sys.stdlib_module_names or f"{first}.{second}" in ours
            assert known, f"{path.relative_to(ROOT)}:{found.line} imports {found.target}"


def test_nothing_is_imported_by_a_name_made_at_run_time() -> None:
    """Such an import would pass every test above unseen."""
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                hidden = called in {"__import__", "exec", "eval"} or called.split(".")[-1] == "import_module"
                assert not hidden, f"{path.relative_to(ROOT)}:{node.lineno}: {called}"


def unsafe_in(tree: ast.Module) -> list[str]:
    """Return what in a module could run code out of a file: unpickling under any of its names."""
    aliases = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            found += [module] if module.split(".")[0] in UNSAFE_MODULES else []
            found += [f"{module}.{a.name}" for a in node.names if (module, a.name) in UNSAFE_CALLS]
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            owner = aliases.get(owner, owner)
            if (owner, node.attr) in UNSAFE_CALLS or (node.attr in UNSAFE_METHODS and "accelerator" in owner.lower()):
                found.append(f"{owner}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += [] if isinstance(node.value, ast.Constant) and node.value.value is False else ["allow_pickle"]
    return found


def test_nothing_is_pickled_or_unpickled() -> None:
    wrong = [f"{path.relative_to(ROOT)}: {what}" for path in modules() for what in unsafe_in(tree_of(path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(path)",
        "import torch as t; t.save(x, path)",
        "from torch import load",
        "import pickle",
        "from pickle import loads as read",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "self.accelerator.save_state(folder)",
    ],
)
def test_what_pickles_is_found_under_every_name(line: str) -> None:
    assert unsafe_in(ast.parse(line))


def test_help_loads_no_heavy_library() -> None:
    """The command line answers at once: the verbs import what they need."""
    heavy = ["torch", "torchvision", "wandb", "tyro", "webdataset", "accelerate", "yaml", "pydantic", "numpy"]
    code = f"import sys, gandist.cli; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.strip() == "[]"
    light = "import sys, gandist.config, gandist.errors; print([n for n in ['torch', 'wandb', 'tyro', 'webdataset', "
    light += "'torchvision'] if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.strip() == "[]"
