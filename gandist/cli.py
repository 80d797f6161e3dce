"""The verbs of ``gandist``. Heavy libraries are imported by the verb that needs them, so help is instant."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import gandist
from gandist.errors import ConfigError, GandistError, did_you_mean

TRAIN_USAGE = "gandist train [CONFIG] [--debug] [--accept KNOB] [--restart-data]"
TRAIN_HELP = """\
Train, or continue, the run of a recipe (without CONFIG: the embedded demo).

  --debug           one device, a few tiny rounds, every check on, no network
  --accept KNOB     continue a run although this knob was changed (may be repeated)
  --restart-data    continue a run although its data is not the same
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code (see :mod:`gandist.errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    own_flags = {"prepare": prepare, "train": train, "config": config}
    try:
        if words[0] in own_flags:
            return own_flags[words[0]](words[1:])
        if not words[0].startswith("-") and words[0] not in (verbs := [*own_flags, "sample"]):
            raise ConfigError(
                f"{words[0]}: no such verb.{did_you_mean(words[0], verbs)} There are: {', '.join(verbs)}."
            )
        chosen = _parser().parse_args(words)
        code: int = chosen.run(chosen)
        return code
    except GandistError as error:
        _complain(error)
        return error.exit_code
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
    recipe, accepted, switches, flags = _split(words, {"--debug", "--restart-data"})
    from gandist.config import check_knobs, load

    config = load(recipe, flags, prog=TRAIN_USAGE, description=TRAIN_HELP)
    check_knobs(accepted, "--accept")
    if "--debug" in switches:
        from gandist import debug

        return debug.train(config)
    from gandist.trainer import Insistence, Trainer

    trainer = Trainer(config, Insistence(tuple(accepted), "--restart-data" in switches))
    try:
        return trainer.train()
    finally:
        trainer.shut_down()


def config(words: Sequence[str]) -> int:
    """``gandist config``: print the resolved recipe, an explanation of every knob, or the run's folder."""
    of_train = {"--debug", "--restart-data"}  # a script asks for the folder of a whole training command
    recipe, _, switches, flags = _split(words, {"--explain", "--folder"} | of_train)
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


def prepare(words: Sequence[str]) -> int:
    """``gandist prepare``: make a folder of indexed shards from images."""
    import tyro

    from gandist.data.making.prepare import prepare as make_shards

    positional = tyro.conf.PositionalRequiredArgs
    print(tyro.cli(make_shards, args=list(words), prog="gandist prepare", config=(positional,)))
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


# --- the other verbs -----------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gandist", description="Distributed training of generative adversarial networks."
    )
    parser.add_argument("--version", action="version", version=f"gandist {gandist.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("prepare", help="make a folder of indexed shards from images", add_help=False)
    verbs.add_parser("train", help="train, or continue, the run of a recipe", add_help=False)
    verbs.add_parser("config", help="print a resolved recipe, or explain every knob", add_help=False)
    _sample_verb(verbs)
    return parser


def _sample_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("sample", help="draw images from a run, a checkpoint or a weights file")
    verb.add_argument("source", type=Path, help="run folder, checkpoint folder, or one .safetensors file")
    verb.add_argument("--out", type=Path, default=Path("grid.png"), help="PNG to write (default: %(default)s)")
    verb.add_argument("--rows", type=_count, default=8, help="rows of the grid (default: %(default)s)")
    verb.add_argument("--columns", type=_count, default=8, help="images in a row (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=0, help="of the latents (default: %(default)s)")
    verb.add_argument("--class", dest="label", help="draw this class only, by name or number")
    verb.set_defaults(run=_sample)


def _sample(chosen: argparse.Namespace) -> int:
    import torch

    from gandist.evaluation.sample import draw, find_weights, fixed_latents, load_generator, pick_class, save_grid

    weights = find_weights(chosen.source)
    generator, card = load_generator(weights)
    classes = len(card.class_names) if card.model.conditional else 0
    z, c = fixed_latents(card.model.latent_dim, classes, chosen.rows, chosen.columns, chosen.seed)
    if chosen.label is not None:
        c = torch.full_like(c, pick_class(card, chosen.label))
    save_grid(draw(generator, z, c), chosen.columns, chosen.out)
    print(f"{chosen.out}: {len(z)} images from {weights} ({card.images_seen / 1000:g} kimg)")
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
