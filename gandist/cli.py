"""The verbs of ``gandist``. Heavy libraries are imported by the verb that needs them, so help is instant."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import gandist
from gandist.errors import EXIT_FAILED, ConfigError, GandistError, did_you_mean
from gandist.runtime.files import NO_ROOM

if TYPE_CHECKING:
    from gandist.latents.space import LatentSpace

TRAIN_USAGE = "gandist train [CONFIG] [--debug] [--accept KNOB] [--restart-data] [--allow-pipe]"
TRAIN_HELP = """\
Train, or continue, the run of a recipe (without CONFIG: the embedded demo).

  --debug           one device, a few tiny rounds, every check on, no network
  --accept KNOB     continue a run although this knob was changed (may be repeated)
  --restart-data    continue a run although its data is not the same
  --allow-pipe      run the command in data.shards 'pipe:COMMAND'; only a command that you know
"""
TRAIN_SWITCHES = {"--debug", "--restart-data", "--allow-pipe"}
DOCTOR_USAGE = "gandist doctor [CONFIG] [--seconds N] [--json] [--allow-pipe]"
DOCTOR_HELP = """\
Say what is wrong here and what to do: software, devices, disks, network, W&B, Slurm. With CONFIG, also play rounds
of the recipe in a folder that is thrown away: speed, memory, time to finish, checkpoints, exact resume.

  --seconds N       play about so long (default: 30)
  --json            print one JSON object
  --allow-pipe      run the command in data.shards 'pipe:COMMAND'; only a command that you know
"""
FIT_USAGE = "gandist fit [CONFIG] [--images N] [--steps N] [--lrs R R ...] [--allow-pipe]"
FIT_HELP = """\
Can the generator of a recipe learn a fixed batch of images by heart, and at which learning rate? In minutes.

  --images N        images of the batch (default: 64)
  --steps N         steps of the optimizer at each rate (default: 300)
  --lrs R R ...     learning rates (default: 0.0001 to 0.1, each twice the one before)
  --allow-pipe      run the command in data.shards 'pipe:COMMAND'; only a command that you know
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code (see :mod:`gandist.errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    own_flags = {
        "prepare": prepare, "encode": encode, "new": new, "train": train, "fit": fit, "config": config,
        "doctor": doctor, "supervise": supervise, "ema": ema,
    }  # fmt: skip
    try:
        if words[0] in own_flags:
            return own_flags[words[0]](words[1:])
        if not words[0].startswith("-") and words[0] not in (verbs := [*own_flags, "index", "sample", "checkpoints"]):
            raise ConfigError(
                f"{words[0]}: no such verb.{did_you_mean(words[0], verbs)} There are: {', '.join(verbs)}."
            )
        chosen = _parser().parse_args(words)
        code: int = chosen.run(chosen)
        return code
    except GandistError as error:
        _complain(error)
        return error.exit_code
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _complain(GandistError(f"{error.filename or 'a file'}: {error.strerror}: free some space, then try again."))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _complain(error: GandistError) -> None:
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        print(f"gandist: {error}", file=sys.stderr)
    elif not isinstance(error, ConfigError):  # every rank finds the same fault in a recipe; one voice is enough
        print(f"gandist [rank {rank}]: {error}", file=sys.stderr)


# --- train and config: a recipe, a few words of their own, and every knob as a flag --------------------------


def train(words: Sequence[str]) -> int:
    """``gandist train``: build the run of a recipe and play it."""
    recipe, accepted, switches, flags = _split(words, TRAIN_SWITCHES)
    from gandist.config import check_knobs, load

    config = load(recipe, flags, prog=TRAIN_USAGE, description=TRAIN_HELP)
    check_knobs(accepted, "--accept")
    if "--debug" in switches:
        from gandist import debug

        return debug.train(config, allow_pipe="--allow-pipe" in switches)
    from gandist.continuity import Insistence
    from gandist.trainer import Trainer

    insistence = Insistence(tuple(accepted), "--restart-data" in switches)
    trainer = Trainer(config, insistence, allow_pipe="--allow-pipe" in switches)
    try:
        return trainer.train()
    finally:
        trainer.shut_down()


def config(words: Sequence[str]) -> int:
    """``gandist config``: print the resolved recipe, an explanation of every knob, or the run's folder."""
    # those of training too: a script asks for the folder of a whole training command
    recipe, _, switches, flags = _split(words, {"--explain", "--folder"} | TRAIN_SWITCHES)
    from gandist.config import embedded_recipe, explain, load, to_yaml

    resolved = load(
        recipe,
        flags,
        prog="gandist config [CONFIG] [--explain] [--folder]",
        description="Print the resolved recipe; with --explain every knob in a table; with --folder the run's folder.",
    )
    if "--folder" in switches:
        _print(str(resolved.folder))
    elif "--explain" in switches:
        _print(explain(resolved, recipe or embedded_recipe(), flags))
    else:
        _print(to_yaml(resolved).rstrip())
    return 0


def fit(words: Sequence[str]) -> int:
    """``gandist fit``: let the generator learn a fixed batch by heart at several learning rates."""
    words, images = _take(words, "--images")
    words, steps = _take(words, "--steps")
    words, rates = _take_all(words, "--lrs")
    recipe, _, switches, flags = _split(words, {"--allow-pipe"})
    from gandist.config import load

    config = load(recipe, flags, prog=FIT_USAGE, description=FIT_HELP)
    from gandist.fitting import fit as fitting

    asked: dict[str, Any] = {}
    try:
        asked |= {} if images is None else {"images": int(images)}
        asked |= {} if steps is None else {"steps": int(steps)}
        asked |= {} if rates is None else {"rates": [float(rate) for rate in rates]}
    except ValueError as error:
        raise ConfigError(f"fit: {error}. Such as: --images 64 --steps 300 --lrs 1e-4 1e-3 1e-2") from None
    fitting.fit(config, **asked, say=_print, allow_pipe="--allow-pipe" in switches)
    return 0


def doctor(words: Sequence[str]) -> int:
    """``gandist doctor``: look at this machine, all ranks of a launch, and rounds of a recipe."""
    words, seconds = _take(words, "--seconds")
    recipe, _, switches, flags = _split(words, {"--json", "--allow-pipe"})
    from gandist.config import load

    config = load(recipe, flags, prog=DOCTOR_USAGE, description=DOCTOR_HELP)
    try:
        patience = 30.0 if seconds is None else _seconds(seconds)
    except (ValueError, argparse.ArgumentTypeError):
        patience = 0.0
    if patience <= 0:
        raise ConfigError(f"--seconds {seconds}: how long to play rounds, such as 30.")
    from gandist.doctor.examine import examine

    return examine(
        config, recipe, seconds=patience, as_json="--json" in switches, allow_pipe="--allow-pipe" in switches
    )


def prepare(words: Sequence[str]) -> int:
    """``gandist prepare``: make a folder of indexed shards from images."""
    from gandist.data.making.prepare import prepare as make_shards

    return _call(make_shards, words, source="SOURCE", destination="DESTINATION")


def encode(words: Sequence[str]) -> int:
    """``gandist encode``: make shards of an autoencoder's latents from shards of images."""
    from gandist.data.encoding.encode import encode as make_shards

    return _call(make_shards, words, shards="SHARDS", destination="OUT")


def new(words: Sequence[str]) -> int:
    """``gandist new``: make shards and a recipe from somebody's images."""
    from gandist.data.making.new import new as make_recipe

    return _call(make_recipe, words, source="SOURCE", name="[NAME]")


def ema(words: Sequence[str]) -> int:
    """``gandist ema``: make averages of G of other widths from those that a run kept."""
    from gandist.averages import ema as make_averages

    return _call(make_averages, words, run="RUN")


def supervise(words: Sequence[str]) -> int:
    """``gandist supervise``: run a training command, and start it again after a crash."""
    head, command = (words, []) if "--" not in words else (words[: words.index("--")], words[words.index("--") + 1 :])
    parser = argparse.ArgumentParser(
        prog="gandist supervise",
        usage="gandist supervise [--restarts N] [--backoff SECONDS] -- COMMAND...",
        description="Run a training command, and start it again after a crash while it makes progress.",
        epilog="Such as: gandist supervise -- accelerate launch --config_file launch/one_node.yaml train.py CONFIG",
    )
    option = parser.add_argument
    option(
        "--restarts",
        type=_whole,
        default=3,
        metavar="N",
        help="most in a row without a newer checkpoint (default: %(default)s)",
    )
    option(
        "--backoff",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="wait before the first, twice as long before each next (default: %(default)g)",
    )
    chosen = parser.parse_args(head)
    if not command:
        raise ConfigError("supervise: which command? gandist supervise -- gandist train CONFIG")
    from gandist.supervise import supervise as run

    return run(command, chosen.restarts, chosen.backoff)


def _call(verb: Callable[..., object], words: Sequence[str], **places: str) -> int:
    """Run a function whose parameters are the flags of a verb, and print what it returns; ``places`` have no flag."""
    import tyro

    def named(*arguments: Any, **flags: Any) -> object:
        return verb(*arguments, **flags)

    hints = get_type_hints(verb)
    for name, shown in places.items():
        hints[name] = Annotated[hints[name], tyro.conf.Positional, tyro.conf.arg(metavar=shown)]
    named.__annotations__, named.__doc__ = hints, verb.__doc__
    vars(named)["__signature__"] = inspect.signature(verb)
    _print(str(tyro.cli(named, args=list(words), prog=f"gandist {verb.__name__}")))
    return 0


def _print(text: str) -> None:
    """Print, unless whoever reads, such as ``head``, has read enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is to be flushed at exit


def _split(words: Sequence[str], known: set[str]) -> tuple[Path | None, list[str], set[str], list[str]]:
    """Return the recipe, the knobs after ``--accept``, the switches among ``known``, and what is left: knob flags."""
    left = list(words)
    recipe = Path(left.pop(0)) if left and not left[0].startswith("-") else None
    accepted: list[str] = []
    switches: set[str] = set()
    flags: list[str] = []
    while left:
        word = left.pop(0)
        if word in known:
            switches.add(word)
        elif word == "--accept":
            if not left:
                raise ConfigError("--accept: needs the name of a knob: --accept section.key")
            accepted.append(left.pop(0))
        elif word.startswith("--accept="):
            accepted.append(word.partition("=")[2])
        else:
            flags.append(word)
    return recipe, accepted, switches, flags


def _take(words: Sequence[str], flag: str) -> tuple[list[str], str | None]:
    """Return the words without a flag and its value, and the value, None where the flag is not among them."""
    left = list(words)
    for place, word in enumerate(left):
        if word.startswith(f"{flag}="):
            return left[:place] + left[place + 1 :], word.partition("=")[2]
        if word == flag:
            return left[:place] + left[place + 2 :], (left[place + 1 : place + 2] or [""])[0]
    return left, None


def _take_all(words: Sequence[str], flag: str) -> tuple[list[str], list[str] | None]:
    """Return the words without a flag and its values, and these, None where the flag is not among the words."""
    if flag not in words:
        return list(words), None
    place = list(words).index(flag)
    stop = next((i for i in range(place + 1, len(words)) if words[i].startswith("--")), len(words))
    return [*words[:place], *words[stop:]], list(words[place + 1 : stop])


# --- the other verbs -----------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gandist", description="Distributed training of generative adversarial networks."
    )
    parser.add_argument("--version", action="version", version=f"gandist {gandist.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("prepare", help="make a folder of indexed shards from images", add_help=False)
    verbs.add_parser("encode", help="from shards of images to shards of an autoencoder's latents", add_help=False)
    verbs.add_parser("new", help="from a folder of images to shards and a recipe", add_help=False)
    verbs.add_parser("train", help="train, or continue, the run of a recipe", add_help=False)
    verbs.add_parser("fit", help="can G learn a fixed batch by heart? finds a learning rate in minutes", add_help=False)
    verbs.add_parser("ema", help="make averages of G of other widths from those that a run kept", add_help=False)
    verbs.add_parser("config", help="print a resolved recipe, or explain every knob", add_help=False)
    verbs.add_parser("doctor", help="say what is wrong here and what to do; with a recipe, try it", add_help=False)
    verbs.add_parser("supervise", help="run a training command, and start it again after a crash", add_help=False)
    _index_verb(verbs)
    _sample_verb(verbs)
    _checkpoints_verb(verbs)
    return parser


def _index_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser(
        "index",
        help="index shards that somebody else made",
        description="Index WebDataset shards that somebody else made; they stay as they are. "
        "Damaged shards are named, never skipped silently.",
        epilog="With --verify, a folder that is indexed already is compared with its index.",
    )
    option = verb.add_argument
    option("shards", nargs="+", metavar="SHARDS", help="folders, tar files, https:// or s3:// urls; {000..099}, *")
    option("--out", type=Path, metavar="DIR", help="where the index goes (default: the folder of the shards)")
    option(
        "--label", default="auto", help="where labels are: cls (or another field), json:KEY, folder, none; "
        "auto takes cls, or class folders, or none (default: %(default)s)",
    )  # fmt: skip
    option("--image", metavar="EXT", help="the field that holds the image, where samples have several")
    option("--resolution", type=_count, metavar="PX", help="of the images (default: that of the first)")
    option("--class-names", type=Path, metavar="FILE", help="names of the classes, one a line; the first is class 0")
    option("--verify", action="store_true", help="decode every image")
    option("--salvage", action="store_true", help="take what comes before the damage in a damaged shard")
    option("--max-rejected", type=int, default=0, metavar="N", help="unfit images to go on without (default: 0)")
    option("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    option("--cache-dir", type=Path, metavar="DIR", help="where shards from afar are kept meanwhile")
    option("--cache-gb", type=_gigabytes, metavar="GB", help="most that may be kept there")
    option("--allow-http", action="store_true", help="accept http://, where nothing proves who answers")
    verb.set_defaults(run=_index)


def _index(chosen: argparse.Namespace) -> int:
    from gandist.config import CacheConfig
    from gandist.data.survey.recheck import is_indexed, recheck
    from gandist.data.survey.survey import survey

    only = Path(chosen.shards[0]).expanduser()
    if chosen.verify and chosen.out is None and len(chosen.shards) == 1 and is_indexed(only):
        _print(recheck(only, chosen.workers))
        return 0
    summary = survey(
        chosen.shards,
        out=chosen.out,
        label=chosen.label,
        image=chosen.image,
        resolution=chosen.resolution,
        class_names=chosen.class_names,
        verify=chosen.verify,
        salvage=chosen.salvage,
        max_rejected=chosen.max_rejected,
        workers=chosen.workers,
        cache=CacheConfig(dir=chosen.cache_dir, gb=chosen.cache_gb),
        allow_http=chosen.allow_http,
    )
    _print(str(summary))
    return 0


def _sample_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("sample", help="draw images from a run, a checkpoint or a weights file")
    verb.add_argument("source", type=Path, help="run folder, checkpoint folder, or one .safetensors file")
    verb.add_argument("--out", type=Path, default=Path("grid.png"), help="PNG to write (default: %(default)s)")
    verb.add_argument("--rows", type=_count, default=8, help="rows of the grid (default: %(default)s)")
    verb.add_argument("--columns", type=_count, default=8, help="images in a row (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=0, help="of the latents (default: %(default)s)")
    verb.add_argument("--class", dest="label", help="draw this class only, by name or number")
    verb.add_argument(
        "--decoder",
        metavar="AUTOENCODER",
        help="folder or OWNER/REPOSITORY of the autoencoder that shows latents (default: where it was when they were "
        "encoded); none shows three of their channels",
    )
    verb.add_argument(
        "--truncation",
        type=_finite,
        default=1.0,
        metavar="PSI",
        help="how far styles may be from their mean: less is better but alike (default: %(default)g)",
    )
    verb.add_argument("--cutoff", type=_count, metavar="N", help="truncate the first N styles only")
    verb.add_argument("--resolution", type=_count, metavar="PX", help="of the images, where G can draw any (cips)")
    verb.set_defaults(run=_sample)


def _sample(chosen: argparse.Namespace) -> int:
    import torch

    from gandist.evaluation.sample import (
        at_resolution,
        draw,
        find_weights,
        fixed_latents,
        load_generator,
        pick_class,
    )
    from gandist.evaluation.scatter import save_picture
    from gandist.latents.pictures import show_by

    weights = find_weights(chosen.source)
    generator, card = load_generator(weights)
    classes = len(card.class_names) if card.model.conditional else 0
    z, c = fixed_latents(card.model.latent_dim, classes, chosen.rows, chosen.columns, chosen.seed)
    if chosen.label is not None:
        c = torch.full_like(c, pick_class(card, chosen.label))
    if chosen.resolution is not None:
        at_resolution(generator, card, chosen.resolution)
    show = show_by(card.latents, _decoder(chosen.decoder, card.latents), z.device)
    images = draw(generator, z, c, truncation=chosen.truncation, cutoff=chosen.cutoff, show=show)
    save_picture(images, chosen.columns, chosen.out)
    print(f"{chosen.out}: {len(z)} images from {weights} ({card.images_seen / 1000:g} kimg)")
    return 0


def _decoder(asked: str | None, space: LatentSpace | None) -> str | None:
    """Return which autoencoder shows a generator's latents, None for none."""
    if asked == "none":
        print("gandist: shows three channels of the latents, not what they stand for.", file=sys.stderr)
        return None
    return asked if asked is not None or space is None else space.autoencoder


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return value


def _gigabytes(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _checkpoints_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("checkpoints", help="list, check or clear up the checkpoints of a run")
    verb.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a run")
    verb.add_argument("--verify", action="store_true", help="read every byte and compare it with what was written")
    verb.add_argument("--prune", type=_count, metavar="N", help="remove all but the best and the newest N whole ones")
    verb.set_defaults(run=_checkpoints)


def _checkpoints(chosen: argparse.Namespace) -> int:
    from gandist.runtime.inventory import checkpoint_folder, entries, prune, table

    folder = checkpoint_folder(chosen.run_folder)
    if chosen.prune is not None:
        for entry in prune(folder, chosen.prune):
            print(f"removed {entry.name}" + (f", which was damaged: {entry.problem}" if entry.problem else ""))
    found = entries(folder, verify=chosen.verify)
    _print(table(found, verified=chosen.verify))
    return EXIT_FAILED if any(entry.problem for entry in found) else 0


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
