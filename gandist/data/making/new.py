"""``gandist new``: from somebody's pictures to a recipe that trains, in one line."""

from __future__ import annotations

import json
import math
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gandist.config import load
from gandist.data.making.look import Look, look_at
from gandist.data.making.prepare import default_format, prepare
from gandist.data.making.preview import PREVIEW_NAME
from gandist.data.making.propose import Proposal, propose
from gandist.data.making.recipe_text import recipe_text
from gandist.data.making.sources import open_source
from gandist.data.making.summary import Summary
from gandist.data.making.write import printable
from gandist.data.shards.index_files import INDEX_NAME, read_index
from gandist.errors import ConfigError, DataError

_UNUSABLE_SHARE = 0.1  # of the images that may be left out, being too small or damaged


@dataclass(frozen=True)
class New:
    """What was found, made and written; ``str()`` of it is for people."""

    look: Look
    proposal: Proposal
    summary: Summary | None
    shards: Path
    recipe: Path

    def __str__(self) -> str:
        """Say what there is, what to look at, and how to start."""
        made = self.summary
        proposal = self.proposal
        lines = [str(self.look), f"  {proposal.resolution} px, {'grey' if proposal.channels == 1 else 'RGB'}"]
        lines.append(f"  {'with' if proposal.conditional.value else 'without'} classes: {proposal.conditional.why}")
        if made is None:
            lines.append(f"{self.shards}: prepared already, and used as it is")
        else:
            lines.append(f"{self.shards}: {made.images} images, {made.bytes / 2**20:.1f} MiB")
            if made.rejected:
                counts = ", ".join(f"{count} {kind}" for kind, count in sorted(made.reasons.items()))
                lines.append(f"  {len(made.rejected)} left out: {counts}")
        recipe = shlex.quote(str(self.recipe))
        lines += [
            f"have a look: {self.shards / PREVIEW_NAME}",
            f"the recipe:  {self.recipe}",
            f"train:       accelerate launch train.py {recipe}",
            f"        or:  gandist train {recipe}",
        ]
        return "\n".join(lines)


def new(
    source: str,
    name: str | None = None,
    *,
    resolution: int | None = None,
    label: str = "auto",
    image: str | None = None,
    out: Path | None = None,
    shards: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> New:
    """Make shards and a recipe from a source of images: look at them, choose, prepare, and say how to train.

    Nothing is overwritten. Interrupted, it goes on when the same command is given again.

    Args:
        source: as for gandist prepare: a folder, an archive, shards, mnist:DIR, ...
        name: of the recipe, its shards and its run; made from the source's when left out.
        resolution: of the images; the largest power of two up to 128 that hardly any is smaller than when None.
        label: where the classes are, as for gandist prepare.
        image: the field that holds the image, for shards whose samples have several.
        out: the recipe file; configs/NAME.yaml when None.
        shards: the folder of shards; shards/NAME when None.
        seed: of the shuffle.
        workers: processes that decode; all cores when None, 0 for none.

    Raises:
        ConfigError: the recipe is there already, or an option is out of its range.
        DataError: the source cannot be used, or the folder of shards holds something else.
        MachineError: there is no space left, or a worker died.

    """
    name = name_from(source) if name is None else _checked(name, "NAME")
    recipe = (Path("configs") / f"{name}.yaml" if out is None else out).expanduser()
    _checked(recipe.stem, f"--out {printable(str(recipe))}: its name, which names the run,")
    folder = (Path("shards") / name if shards is None else shards).expanduser()
    if recipe.exists() or recipe.is_symlink():
        raise ConfigError(
            f"{recipe}: exists already, and nothing is ever overwritten. Give another NAME, or --out FILE."
        )
    look = _look(source, folder, label, image, seed, resolution)
    proposal = propose(look, resolution)
    options = _options(look, proposal, label, image, seed)
    summary = None
    if not _prepared_already(folder, look, proposal):
        summary = prepare(source, folder, workers=workers, **options)
    text = recipe_text(folder, recipe, look, proposal, _command(source, folder, options))
    _write_new(recipe, text)
    load(recipe)
    return New(look, proposal, summary, folder, recipe)


def name_from(source: str) -> str:
    """Return a name for a run on a source, from the last part of the source's name."""
    prefix, colon, rest = source.partition(":")
    if colon and not Path(source).exists():
        last = rest.partition(":")[0] if prefix == "torchvision" else prefix
    else:
        first = Path(re.split(r",(?![^{}]*\})", source)[0])
        last = first.parent.name if re.search(r"[*?{\[]", first.name) else first.resolve().name
        last = re.sub(r"(?i)\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$", "", last)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip("._-").lower()
    return safe[:100] or "images"


def _checked(name: str, what: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(f"{what} {printable(name)!r} must be letters, digits, dots, dashes and underlines.")
    return name


def _look(source: str, folder: Path, label: str, image: str | None, seed: int, resolution: int | None) -> Look:
    above = next(parent for parent in folder.absolute().parents if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix=".looking-", dir=above) as unpacked:
        found = open_source(
            source, Path(unpacked), resolution=resolution or 32, channels=3, seed=seed, download=False,
            label=label, image=image,
        )  # fmt: skip
        return look_at(found)


def _options(look: Look, proposal: Proposal, label: str, image: str | None, seed: int) -> dict[str, Any]:
    """Return the options of prepare that are not their defaults."""
    options: dict[str, Any] = {"resolution": proposal.resolution}
    unusual = {
        "channels": (proposal.channels, 3),
        "fit": (proposal.fit, look.fit),
        "allow_upscale": (proposal.allow_upscale, False),
        "label": (label, "auto"),
        "image": (image, None),
        "seed": (seed, 0),
        "max_rejected": (math.floor(_UNUSABLE_SHARE * look.images), 0),
    }
    return options | {option: value for option, (value, default) in unusual.items() if value != default}


def _command(source: str, folder: Path, options: dict[str, Any]) -> str:
    words = ["gandist", "prepare", source, str(folder)]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return printable(shlex.join(words), 2000)


def _prepared_already(folder: Path, look: Look, proposal: Proposal) -> bool:
    """Return whether the very set is there.

    Raises:
        DataError: the folder holds something else.

    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / INDEX_NAME).is_file():
        raise DataError(f"{folder}: exists already, and is no prepared set. Give another NAME, or --shards DIR.")
    index = read_index(folder)
    found = {
        "source": index.source,
        "resolution": index.resolution,
        "channels": index.channels,
        "classes": list(index.class_names),
        "images": index.samples + len(index.rejected),
        "format": index.transform.get("format"),
        "fit": index.transform.get("fit"),
    }
    wanted = {
        "source": look.title,
        "resolution": proposal.resolution,
        "channels": proposal.channels,
        "classes": list(look.class_counts),
        "images": look.images,
        "format": default_format(proposal.resolution),
        "fit": proposal.fit,
    }
    for what, value in wanted.items():
        if found[what] != value:
            shown = [printable(json.dumps(each, ensure_ascii=False)) for each in (found[what], value)]
            raise DataError(
                f"{folder}: holds another set: its {what} is {shown[0]}, not {shown[1]}. "
                "Give another NAME, or --shards DIR."
            )
    return True


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{path}: exists already, and nothing is ever overwritten. Give another --out FILE."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}).") from error
