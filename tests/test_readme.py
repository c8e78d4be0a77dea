"""What the README promises is what continuous integration runs and what is in the tree."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readme_test_command():
    commands = re.findall(r"^(python3 -m venv .*)$", README, re.MULTILINE)
    assert len(commands) == 2
    tests = [command for command in commands if command.endswith("-m pytest")]
    assert len(tests) == 1
    assert tests[0] in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200


def test_the_map_names_every_folder_and_no_other():
    named = set(re.findall(r"^    ((?:jaxrm|experiments)/\S*)", README, re.MULTILINE))
    assert all((ROOT / place).exists() for place in named)
    folders = {
        f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "jaxrm").glob("*/__init__.py")
    }
    assert {place for place in named if place.endswith("/")} == folders | {"experiments/"}


def test_the_architecture_names_every_module_and_no_other():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^    ((?:jaxrm|experiments)/\S+\.py) ", text, re.MULTILINE))
    there = {
        str(path.relative_to(ROOT))
        for folder in ("jaxrm", "experiments")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == there


def test_links_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
