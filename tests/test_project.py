"""The project's own files agree with each other and with what the README says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

import wsolkit
from tests import count_lines, result_tables
from wsolkit.study import compare
from wsolkit.system.folders import notebooks_root
from wsolkit.training import profiles

ROOT = Path(wsolkit.__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a clone of the project")


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def git(*arguments: str) -> subprocess.CompletedProcess:
    """Git in the clone; code 127 and no words where there is none."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_agrees_with_pyproject(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    extras = project["optional-dependencies"]
    assert set(pip) == {*project["dependencies"], *extras["notebooks"], *extras["dev"], "-e ."}
    assert f"python{project['requires-python']}" in environment["dependencies"]
    binder = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())["dependencies"]
    assert {each.replace("pytorch-cpu", "torch") for each in binder if "torch" in each} <= set(pip)


def test_every_requirement_has_a_lower_bound_and_no_upper(project):
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", requirement) for requirement in requirements), requirements


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    for target in (target for target in targets if not target.startswith(("http", "reference/"))):
        assert (page.parent / target).exists(), target


def test_readme_is_two_screens_and_every_page_is_found_from_it():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 90
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - set(re.findall(r"docs/([\w.]+)", text)) == {
        "index.md",
        "contributing.md",
        "changelog.md",
    }


def test_pages_name_every_notebook_and_only_make_targets_that_exist():
    listed = (ROOT / "docs" / "notebooks.md").read_text()
    for notebook in notebooks_root().glob("*.ipynb"):
        assert f"notebooks/{notebook.name}" in listed
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_exist(page):
    from typer.main import get_command

    from wsolkit.cli import app

    used = re.findall(
        r"(?:^|`)\s*(?:\.venv/bin/)?wsolkit ([a-z]+)(?: ([a-z]+))?([^`\n]*)", page.read_text(), re.MULTILINE
    )
    assert used or page.name not in ("notebooks.md", "real_data.md", "your_own.md", "extending.md")
    for name, second, rest in used:
        command = get_command(app).commands[name]
        command = getattr(command, "commands", {}).get(second, command)
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (name, second, rest)


def test_every_guarantee_has_its_test():
    named = re.findall(r"`(test_\w+)`", (ROOT / "CONTRIBUTING.md").read_text())
    code = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in code] == []


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Path:
    """The clone; as it was committed, where ``make figures`` has put results of this machine into figures/ since."""
    changed = git("diff", "--quiet", "HEAD", "--", "figures").returncode
    if changed == 1:
        into = tmp_path_factory.mktemp("committed")
        for name in ("figures", "docs", "README.md"):
            compare.committed(ROOT / name, into)
        return into
    if changed != 0 and (ROOT / "runs").exists():
        pytest.skip("figures/ may hold results of this machine, and without git nobody can tell")
    return ROOT


def test_the_results_on_pages_are_those_of_the_csvs(committed):
    texts = [(committed / name).read_text() for name in result_tables.PAGES]
    assert [result_tables.filled(text, committed) for text in texts] == texts
    assert sum(text.count("<!-- end -->") for text in texts) == 19


def test_the_committed_trials_mark_what_the_profiles_have(committed):
    for folder in (result_tables.DEMO, result_tables.PHOTOS):
        profile = profiles.get(Path(folder).name)
        marked = pd.read_csv(committed / folder / "tuning.csv").set_index("method")["chosen"]
        for method, settings in profile.trials.items():
            has = profile.methods.get(method, {})
            assert marked[method].to_list() == [options == has for options in settings], (folder, method)


def test_other_machines_found_the_same(committed):
    """What is committed of them, against what the first found."""
    for name in result_tables.MACHINES.values():
        first, folder = committed / result_tables.DEMO, committed / name
        assert not compare.beyond_chance(compare.numbers(first, folder))
        assert compare.contradictory(compare.verdicts(first, folder)).empty


def test_no_file_is_longer_than_the_house_allows():
    for path in [*(ROOT / "wsolkit").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_package_is_thin_and_has_few_doors():
    counts = count_lines.by_place()
    assert counts.total() <= count_lines.LIMIT, counts
    assert len([place for place in counts if not place.startswith("__")]) <= 16, counts


def test_imports_go_one_way():
    # In a process of its own: the linter switches off all loggers that exist.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_importing_the_package_does_no_work():
    code = "import sys, wsolkit; assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_figures_of_the_demo_are_committed_and_small():
    listed = git("ls-files", "figures").stdout.splitlines()
    if not listed:
        pytest.skip("needs a clone with its history")
    assert sum((ROOT / name).stat().st_size for name in listed) < 10_000_000
    for notebook in notebooks_root().glob("*.ipynb"):
        assert [name for name in listed if Path(name).name.startswith(notebook.stem)], notebook.stem
