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


def test_the_file_map_names_every_module_and_no_other():
    named = set(re.findall(r"^    ((?:jaxrm|experiments)/\S+\.py) ", README, re.MULTILINE))
    there = {
        str(path.relative_to(ROOT))
        for folder in ("jaxrm", "experiments")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == there
