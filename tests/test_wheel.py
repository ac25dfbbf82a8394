"""The wheel works without the repository, and brings the notebooks along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import wsolkit
from wsolkit.reproduce import notebooks

ROOT = Path(wsolkit.__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a clone of the project")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("wsolkit-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def call(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints, with the wheel alone, called from another folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WSOLKIT_")}
    environment = kept | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_package_and_notebooks_are_those_of_the_wheel(installed, tmp_path):
    code = "import wsolkit; from wsolkit.reproduce import notebooks; print(wsolkit.__file__, *notebooks.find())"
    package, *inside = call(installed, tmp_path, "-c", code).split()
    assert package.startswith(str(installed))
    assert [Path(notebook).name for notebook in inside] == [path.name for path in notebooks.find()]
    assert all(notebook.startswith(str(installed)) for notebook in inside)


def test_the_paper_s_numbers_and_the_page_s_templates_are_in_it(installed, tmp_path):
    code = "from wsolkit import published; from wsolkit.reproduce import pages; "
    code += "pages.environment().get_template('index.html.j2'); print(len(published.table('7')) > 0)"
    assert call(installed, tmp_path, "-c", code).strip() == "True"


def test_it_plans_in_the_folder_that_it_is_called_from(installed, tmp_path):
    assert "unique runs: 0 done" in call(
        installed, tmp_path, "-m", "wsolkit", "plan", "table5_maps", "--profile", "smoke"
    )
    assert list(tmp_path.iterdir()) == []
