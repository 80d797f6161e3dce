"""``gandist new``: what it finds in somebody's pictures, what it chooses, and that what it writes trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pictures import everything_under, fill, picture
from PIL import Image

from gandist.cli import main
from gandist.config import load
from gandist.data.making.look import Look
from gandist.data.making.new import New, name_from, new
from gandist.data.making.propose import Choice, choose_conditional, choose_hflip, choose_resolution, propose
from gandist.data.shards.index_files import read_index
from gandist.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes and shards are written below the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def made(source: Path | str, name: str | None = None, **options: Any) -> New:
    return new(str(source), name, **{"workers": 0, **options})


def greys(folder: Path, count: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(size, channels=1, seed=number).convert(mode).save(folder / f"{number}.png")
    return folder


# --- choosing: pure functions of what was found ---------------------------------------------------------------


def look(sizes: list[tuple[int, int]], *, grey: bool = False, **given: Any) -> Look:
    facts: dict[str, Any] = {"images": len(sizes), "class_counts": {}, "unlabelled": 0, "fit": "crop", **given}
    return Look(title="pictures", sizes=sizes, grey=grey, unreadable=0, skipped={}, **facts)


@pytest.mark.parametrize(
    ("sizes", "grey", "expected"),
    [
        ([(32, 32)] * 9, False, (32, "crop")),
        ([(96, 96)] * 9, False, (64, "crop")),
        ([(4000, 3000)] * 9, False, (128, "crop")),
        ([(640, 70)] * 9, False, (64, "crop")),
        ([(640, 480)] * 95 + [(40, 40)] * 5, False, (128, "crop")),
        ([(640, 480)] * 94 + [(40, 40)] * 6, False, (32, "crop")),
        ([(28, 28)] * 9, True, (32, "pad")),
        ([(28, 28)] * 9, False, (16, "crop")),
        ([(48, 48)] * 9, True, (32, "crop")),
        ([(32, 32)] * 9, True, (32, "crop")),
        ([(8, 8)] * 9, True, (8, "crop")),
        ([(100, 100), (28, 28)], True, (16, "crop")),
    ],
)
def test_the_resolution(sizes: list[tuple[int, int]], grey: bool, expected: tuple[int, str]) -> None:
    assert choose_resolution(look(sizes, grey=grey)) == expected


def test_images_that_are_too_small_for_any_network() -> None:
    tiny = look([(5, 5)] * 9)
    with pytest.raises(DataError, match=r"smaller than 8 px(.|\n)*--resolution 8"):
        propose(tiny)
    assert propose(tiny, 8).allow_upscale
    assert not propose(look([(9, 9)] * 9), 8).allow_upscale
    for wrong in (0, 4, 48, -8):
        with pytest.raises(ConfigError, match=f"--resolution {wrong}: must be a power of two from 8 on"):
            propose(tiny, wrong)


@pytest.mark.parametrize(
    ("facts", "expected", "why"),
    [
        ({}, False, "no classes"),
        ({"class_counts": {"a": 500}}, False, "no classes"),
        ({"class_counts": {"a": 100, "b": 100}}, True, "2 classes, each with at least 100 images"),
        ({"class_counts": {"a": 5000, "b": 99}}, False, "has 99 images"),
        ({"class_counts": {"a": 5000, "b": 0}}, False, "has 0 images"),
        ({"class_counts": {"a": 100, "b": 100}, "unlabelled": 1}, False, "1 images have no class"),
        ({"class_counts": {str(n): 100 for n in range(1001)}}, False, "1001 classes are too many"),
    ],
)
def test_whether_classes_are_used(facts: dict[str, Any], expected: bool, why: str) -> None:
    choice = choose_conditional(look([(9, 9)], **facts))
    assert choice.value == expected
    assert why in choice.why


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, True),
        ({"grey": True}, False),
        ({"images": 100_001}, False),
        ({"class_counts": {"cat": 1, "dog": 1}}, True),
        ({"class_counts": {str(n): 1 for n in range(10)}}, False),
        ({"class_counts": {"a": 1, "B": 1}}, False),
    ],
)
def test_whether_images_are_mirrored(facts: dict[str, Any], expected: bool) -> None:
    assert choose_hflip(look([(9, 9)], **facts)).value == expected


@pytest.mark.parametrize("images", [1, 199, 200, 5000, 200_000, 10**7])
@pytest.mark.parametrize("classes", [0, 2])
def test_lengths_suit_the_size(images: int, classes: int) -> None:
    proposal = propose(look([(64, 64)], images=images, class_counts={str(n): images for n in range(classes)}))
    assert 500 <= proposal.total_kimg <= 20_000
    assert 20 <= proposal.total_kimg / proposal.every_kimg <= 100
    assert proposal.batch_images in (16, 32, 64)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/My Cats!", "my_cats"), ("photos.zip", "photos"), ("a.tar.gz,b.tar.gz", "a"), ("x/{0..3}.tar", "x"),
        ("x/*.tar", "x"), ("mnist:/a/b", "mnist"), ("glyphs:30", "glyphs"), ("torchvision:CIFAR10:/x", "cifar10"),
        ("猫", "images"), ("-rf", "rf"), ("UPPER.ZIP", "upper"),
    ],
)  # fmt: skip
def test_names_come_from_the_source(source: str, name: str) -> None:
    assert name_from(source) == name


# --- the whole of it ---------------------------------------------------------------------------------------------


def trains(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a few small rounds of a recipe; its networks are made small too."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps one precision for each process
    small = ["--model.dcgan.generator_channels", "4", "--model.dcgan.discriminator_channels", "4"]
    small += ["--model.resnet.generator_channels", "16", "--model.resnet.discriminator_channels", "16"]
    monkeypatch.setattr("gandist.debug.ROUNDS", 2)
    assert main(["train", str(recipe), "--debug", "--execution.threads", "1", *small]) == 0


def test_colour_photographs_without_classes(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "Cats", {".": 30}, (40, 33))
    assert main(["new", str(tmp_path / "Cats"), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    for words in (
        "folder Cats: 30 images, RGB, 40x33 px (by the headers of 30)", "32 px, RGB", "the images have no classes",
        "have a look: shards/cats/preview.png", "accelerate launch train.py configs/cats.yaml",
        "gandist train configs/cats.yaml",
    ):  # fmt: skip
        assert words in said
    config = load(Path("configs/cats.yaml"))
    assert (config.name, config.model.arch, config.model.conditional) == ("cats", "dcgan", False)
    assert (config.data.shards, config.data.resolution, config.data.channels) == ("shards/cats", 32, 3)
    assert config.data.hflip
    assert (here / "shards" / "cats" / "preview.png").is_file()
    trains(Path("configs/cats.yaml"), monkeypatch)


def test_classes_with_enough_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "pets", {"cat": 101, "dog": 100}, (8, 8))
    result = made(source, "zoo")
    config = load(result.recipe)
    assert (config.name, config.model.arch, config.model.conditional) == ("zoo", "resnet", True)
    assert config.data.resolution == 8
    assert "conditional: true # 2 classes, each with at least 100 images" in result.recipe.read_text()
    trains(result.recipe, monkeypatch)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_digits(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey by their pixels, however they are stored, and of a size just below a power of two."""
    result = made(greys(tmp_path / "digits", 12, mode=mode))
    config = load(result.recipe)
    assert (config.data.resolution, config.data.channels, config.data.hflip) == (32, 1, False)
    index = read_index(result.shards)
    assert (index.transform["fit"], index.channels) == ("pad", 1)
    trains(result.recipe, monkeypatch)


def test_one_coloured_image_among_grey_ones_makes_the_set_coloured(tmp_path: Path) -> None:
    source = greys(tmp_path / "s", 5, (16, 16))
    picture((16, 16)).save(source / "colour.png")
    assert load(made(source).recipe).data.channels == 3


def test_the_written_card_says_how_it_came_about(tmp_path: Path) -> None:
    source = fill(tmp_path / "a b", {".": 20}, (16, 16))
    text = made(source).recipe.read_text()
    card = {line[1:].split()[0] for line in text.splitlines() if line.startswith("# ") and line[2] != " "}
    assert {"paper", "data", "hardware", "expected", "command"} <= card
    assert f"gandist prepare '{source}' shards/a_b --resolution 16 --max-rejected 2" in text
    assert yaml.safe_load(text)["model"]["arch"] == "dcgan"


def test_a_few_unusable_images_are_left_out(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", {".": 38}, (32, 32))
    picture((9, 9)).save(source / "small.png")
    (source / "page.png").write_text("<html>")
    result = made(source)
    assert result.summary is not None
    assert result.summary.images == 38
    assert "2 left out: 1 not an image, 1 too small" in str(result)
    assert "1 of 40 cannot be read" in str(result)


def test_a_resolution_of_ones_own(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", {".": 5}, (12, 12))
    assert load(made(source, resolution=16).recipe).data.resolution == 16


def test_what_is_prepared_already_is_used(tmp_path: Path, here: Path) -> None:
    source = fill(tmp_path / "s", {".": 30}, (16, 16))
    first = made(source)
    before = everything_under(here / "shards")
    again = made(source, out=Path("other.yaml"))
    assert (again.summary, again.shards) == (None, first.shards)
    assert "prepared already, and used as it is" in str(again)
    assert load(again.recipe).name == "other"
    assert everything_under(here / "shards") == before
    picture((16, 16), seed=99).save(source / "new.png")
    with pytest.raises(DataError, match=r"holds another set: its images is 30, not 31\. Give another NAME"):
        made(source, out=Path("third.yaml"))
    assert not Path("third.yaml").exists()


def test_nothing_is_overwritten(tmp_path: Path, here: Path) -> None:
    source = fill(tmp_path / "s", {".": 5}, (16, 16))
    (here / "configs").mkdir()
    (here / "configs" / "s.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"configs/s\.yaml: exists already"):
        made(source)
    assert everything_under(here) == {"configs/s.yaml": b"mine"}
    (here / "shards" / "t").mkdir(parents=True)
    (here / "shards" / "t" / "x").write_text("mine")
    with pytest.raises(DataError, match="exists already, and is no prepared set"):
        made(source, "t")
    assert everything_under(here) == {"configs/s.yaml": b"mine", "shards/t/x": b"mine"}


@pytest.mark.parametrize("name", ["../x", "a b", "", ".x", "x" * 101])
def test_names_that_cannot_be(tmp_path: Path, here: Path, name: str) -> None:
    source = fill(tmp_path / "s", {".": 5}, (16, 16))
    with pytest.raises(ConfigError, match="must be letters"):
        made(source, name)
    with pytest.raises(ConfigError, match="must be letters"):
        made(source, out=Path(f"{name}.yaml") if name not in ("", "../x") else Path("a/-.yaml"))
    assert not list(here.iterdir())


def test_sources_that_cannot_be(tmp_path: Path, here: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        made(tmp_path / "nowhere")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "x.png").write_text("x")
    with pytest.raises(DataError, match="not one image can be read; the first: x"):
        made(tmp_path / "s")
    assert not list(here.iterdir())


def test_hostile_names_cannot_write_into_the_recipe(tmp_path: Path) -> None:
    source = fill(tmp_path / "x\nrun: {seed: 7}\n#", {"a\nb: c": 3, "d": 3}, (16, 16))
    result = made(source)
    assert load(result.recipe).run.seed == 0
    assert "\nb: c" not in result.recipe.read_text()
    assert "\nrun: {seed" not in str(result)


def test_a_colour_image_of_one_colour_counts_as_grey_only_if_it_is(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for number in range(4):
        Image.fromarray(np.full((16, 16, 3), (200, 10, number), np.uint8)).save(tmp_path / "s" / f"{number}.png")
    assert load(made(tmp_path / "s").recipe).data.channels == 3


def test_a_choice_carries_its_reason() -> None:
    assert propose(look([(32, 32)])).conditional == Choice(False, "the images have no classes")


@pytest.mark.parametrize(("verb", "usage"), [("new", "SOURCE [NAME]"), ("prepare", "SOURCE DESTINATION")])
def test_help_says_what_belongs_where(
    verb: str, usage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: gandist {verb} [-h] [OPTIONS] {usage}\n" in capsys.readouterr().out
