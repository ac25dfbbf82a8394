"""The project's own files agree with each other and with what the README says."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import wsolkit
from tests import result_tables
from wsolkit.system.folders import notebooks_root

ROOT = Path(wsolkit.__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a clone of the project")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_agrees_with_pyproject(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    extras = project["optional-dependencies"]
    assert set(pip) == {*project["dependencies"], *extras["notebooks"], *extras["dev"], "-e ."}
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_every_requirement_has_a_lower_bound_and_no_upper(project):
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", requirement) for requirement in requirements), requirements


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#\s]+)\)|src=\"([^\"]+)\"", text)
    local = [a or b for a, b in targets if not (a or b).startswith("http")]
    assert local
    for target in local:
        assert (ROOT / target).exists(), target


def test_readme_names_every_notebook_and_only_make_targets_that_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for notebook in notebooks_root().glob("*.ipynb"):
        assert notebook.stem in text
    for target in set(re.findall(r"\bmake ([a-z]+)", text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_exist(page):
    from typer.main import get_command

    from wsolkit.cli import app

    used = re.findall(
        r"(?:^|`)\s*(?:\.venv/bin/)?wsolkit ([a-z]+)(?: ([a-z]+))?([^`\n]*)", page.read_text(), re.MULTILINE
    )
    assert used or page.name not in ("README.md", "guide.md", "extending.md")
    for name, second, rest in used:
        command = get_command(app).commands[name]
        command = getattr(command, "commands", {}).get(second, command)
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (name, second, rest)


def test_the_results_on_pages_are_those_of_the_csvs():
    texts = [page.read_text() for page in result_tables.PAGES]
    assert [result_tables.filled(text) for text in texts] == texts
    assert sum(text.count("<!-- end -->") for text in texts) == 6


def test_no_file_is_longer_than_the_house_allows():
    for path in [*(ROOT / "wsolkit").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_importing_the_package_does_no_work():
    code = "import sys, wsolkit; assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)"
    import sys

    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_figures_of_the_demo_are_committed_and_small():
    command = ["git", "ls-files", "figures"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    if not listed:
        pytest.skip("needs a clone with its history")
    assert sum((ROOT / name).stat().st_size for name in listed) < 8_000_000
    for notebook in notebooks_root().glob("*.ipynb"):
        assert [name for name in listed if Path(name).name.startswith(notebook.stem)], notebook.stem
