"""Versions: of Python, of torch and what it was built for, of the libraries."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

import gandist
from gandist.doctor.finding import Finding, fail, note, ok

NEEDED = (
    "torchvision", "accelerate", "safetensors", "webdataset", "wandb", "pydantic", "tyro", "pyyaml", "numpy", "fsspec",
    "pillow", "jaxtyping", "tqdm",
)  # fmt: skip
EXTRAS = {
    "simplejpeg": ("fast", "JPEGs are decoded more slowly"),
    "tensorboard": ("tensorboard", "tracking.tensorboard cannot be switched on"),
}


def version(package: str) -> str | None:
    """Return the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def identity() -> dict[str, str]:
    """Return the versions that must be the same on all ranks."""
    known = {"gandist": gandist.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return known | {name: version(name) or "missing" for name in ("accelerate", "safetensors", "numpy", "webdataset")}


def interpreter() -> list[Finding]:
    """Look at Python and the system."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return [ok("python", f"{platform.python_version()} on {system}; gandist {gandist.__version__}")]


def torch_build() -> list[Finding]:
    """Look at what torch was built for."""
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    parts = [f"{torch.__version__}, {built}"]
    if torch.version.cuda and torch.cuda.is_available():
        parts.append(f"cuDNN {torch.backends.cudnn.version()}")
    if not torch.distributed.is_available():
        return [fail("torch", f"{parts[0]}, without torch.distributed", "Install torch from the usual wheels.")]
    return [ok("torch", ", ".join(parts))]


def libraries() -> list[Finding]:
    """Look for the libraries that are needed, and for those that help."""
    found = {name: version(name) for name in NEEDED}
    missing = [name for name, number in found.items() if number is None]
    if missing:
        return [fail("libraries", f"missing: {', '.join(missing)}", "pip install gandist")]
    shown = ("accelerate", "safetensors", "webdataset", "wandb", "torchvision")
    findings = [ok("libraries", ", ".join(f"{name} {found[name]}" for name in shown))]
    findings += [
        note("libraries", f"{name} is not installed: {effect}", f"If you want it: pip install 'gandist[{extra}]'")
        for name, (extra, effect) in EXTRAS.items()
        if version(name) is None
    ]
    return findings
