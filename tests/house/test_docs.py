"""What the documentation points at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in ("docs", "launch", "slurm") for page in (ROOT / name).glob("*.md"))]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    for link in local:
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_fault_names_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"\[(\w+)\]\(\.\./(tests/[^)]+)\)", row.split("|")[3])
        assert named, row
        for name, path in named:
            assert Path(path).stem == name
            assert "def test_" in (ROOT / path).read_text()


def test_knobs_that_pages_name_are_there() -> None:
    from gandist.config import Config, leaves

    known = {leaf.path for leaf in leaves(Config())}
    sections = {path.split(".")[0] for path in known}
    for page in PAGES:
        for flag in re.findall(r"--([a-z]+(?:\.[a-z_0-9]+)+)", page.read_text(encoding="utf-8")):
            if flag.split(".")[0] in sections:
                assert flag in known, f"{page.name}: --{flag}"
