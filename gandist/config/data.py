"""The knobs of the run as a whole and of its images."""

from __future__ import annotations

from pathlib import Path

from gandist.config.knobs import Section, knob, section


class RunConfig(Section):
    """The run as a whole: its folder, its seed, its length."""

    name: str | None = knob(
        None, "Name of the run and of its folder; the recipe's file name when left out.",
        change="continue", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    )  # fmt: skip
    root: Path = knob(Path("runs"), "Folder that holds the run's folder.", change="continue")
    seed: int = knob(0, "Everything random is a pure function of this and of the position in the run.", ge=0)
    total_kimg: float = knob(
        1000.0, "Length of the run: real images shown to D over all ranks.", change="warn", unit="kimg", gt=0
    )


class StreamConfig(Section):
    """Shards that have no index: read as they come, without epochs and without exact resume."""

    label: str = knob("none", "Where the class number is: a field such as cls, json:KEY, or none.")
    class_count: int = knob(0, "Number of classes; 0 for none.", ge=0, le=1 << 20)
    shuffle_images: int = knob(5000, "Images that are shuffled against each other.", unit="images", ge=1)


class DataConfig(Section):
    """The real images and their order."""

    shards: str = knob(
        "glyphs",
        "Folder or URL of indexed shards; shards to stream, like DIR/{000..099}.tar; or made without end: 'glyphs', "
        "which are digits, or 'ring', which are points in the plane.",
        change="continue",
        min_length=1,
    )
    root: str | None = knob(
        None, "Folder or URL below which the shards lie, when it is not where their index is.", change="continue"
    )
    allow_http: bool = knob(
        False, "Accept http:// where nothing proves who answers; https:// needs no leave.", change="continue"
    )
    resolution: int = knob(32, "Height and width of every image; 1 for points.", unit="px", ge=1, le=4096)
    channels: int = knob(3, "1 for greyscale, 3 for RGB; latents and vectors have their own number.", ge=1, le=4096)
    decoder: str | None = knob(
        None,
        "Autoencoder that shows latents as pictures: folder or OWNER/REPOSITORY; without it three channels are shown.",
        change="continue",
    )
    classes: tuple[int, ...] | None = knob(None, "Train on these class numbers only; on all when left out.")
    hflip: bool = knob(False, "Mirror each image with probability one half.")
    bad_images: float = knob(
        0.0001,
        "Share of the images that may turn out undecodable; the next of the shard takes their place.",
        change="continue",
        ge=0,
        le=1,
    )
    chunk: int = knob(32, "Neighbouring samples of a shard that stay together in the shuffle.", unit="samples", ge=1)
    block: int = knob(8192, "Samples shuffled against each other.", unit="samples", ge=1)
    lanes: int = knob(1, "Independent streams through an epoch; above 1 for nodes with separate caches.", ge=1)
    stripe: int = knob(1, "Consecutive samples taken from one lane at a time.", unit="samples", ge=1)
    stream: StreamConfig = section(StreamConfig, "Read when shards names tar files to stream.")
