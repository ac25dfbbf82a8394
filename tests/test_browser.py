"""The kit in a real browser: JupyterLab with the tour, and the gallery. Screenshots are kept where pytest keeps files.

``WSOLKIT_SCREENSHOTS=folder pytest -m browser`` keeps them in a folder of your own.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from wsolkit.system import folders

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DEMO = folders.home() / "figures" / "demo"

ALL_DONE = """code => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
    .filter(prompt => /\\[\\d+\\]/.test(prompt.textContent)).length >= code"""
"""As many code cells as there are have a number, where a star stood."""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        if program is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(f"none of {', '.join(BROWSERS)} is on this machine (nor one of `playwright install chromium`)")
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def screenshots(tmp_path) -> Path:
    folder = Path(os.environ.get("WSOLKIT_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_the_gallery_and_its_notebooks(browser, screenshots, width, scheme):
    """No console error, nothing wider than a phone, pictures there, dark where dark is wanted."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, troubles = context.new_page(), []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("requestfailed", lambda request: troubles.append(request.url))
    for file in sorted(DEMO.glob("*.html")):
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('img').forEach(each => each.loading = 'eager')")
        page.wait_for_function("[...document.images].every(each => each.complete)")
        assert page.evaluate("[...document.images].every(each => each.naturalWidth > 0)"), file.name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), file.name
        shade = page.evaluate("getComputedStyle(document.documentElement).colorScheme")
        assert "dark" in shade
        if file.name in ("index.html", "00_tour.html"):
            page.screenshot(path=screenshots / f"{file.stem}-{width}-{scheme}.png")
    assert troubles == []
    context.close()


@pytest.fixture
def lab(tmp_path):
    """JupyterLab as ``make lab`` starts it, on a copy of the tour, in smoke; its address."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(folders.notebooks_root() / "00_tour.ipynb", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    own = {"JUPYTER_PREFER_ENV_PATH": "1", "WSOLKIT_PROFILE": "smoke", "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings"}
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"),
        *(f"--notebook-dir={folder}", "--IdentityProvider.token=", "--MultiKernelManager.default_kernel_name=wsolkit"),
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    environment = os.environ | {name: str(value) for name, value in own.items()}
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"{address}/api", server)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address: str, server: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, "JupyterLab ended"
            assert time.monotonic() < deadline, "JupyterLab does not answer"
            time.sleep(0.5)


@pytest.mark.slow
def test_the_tour_runs_in_jupyterlab(browser, lab, screenshots, tmp_path):
    """Clear all outputs, Run All, and look: fresh tables and figures, sliders that move, no error."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(f"{lab}/lab/tree/00_tour.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
    _menu(page, "Edit", "Clear Outputs of All Cells")
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output').length === 0", timeout=30_000)
    _menu(page, "Run", "Run All Cells")
    notebook = json.loads((tmp_path / "notebooks" / "00_tour.ipynb").read_text())
    code = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    page.wait_for_selector(".widget-slider", timeout=240_000, state="attached")
    page.wait_for_function(ALL_DONE, arg=code, timeout=240_000)
    page.locator(".widget-slider").first.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "tour-sliders.png")
    before = page.locator(".widget-image").get_attribute("src")
    page.locator(".widget-slider .noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.widget-image').src !== before", arg=before, timeout=30_000
    )
    _menu(page, "File", "Save Notebook")
    saved = _saved(tmp_path / "notebooks" / "00_tour.ipynb", code)
    outputs = [output for cell in saved["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 4
    assert any("profile smoke" in "".join(output.get("text", "")) for output in outputs)
    assert saved["metadata"]["kernelspec"]["name"] == "wsolkit"


def _menu(page, menu: str, item: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=re.compile(f"^{item}")).first.click()


def _saved(path: Path, code: int, seconds: float = 60) -> dict:
    """The notebook once it was saved with every code cell executed anew; before, its outputs are those of the demo."""
    deadline = time.monotonic() + seconds
    while True:
        text = path.read_text()
        notebook = json.loads(text)
        counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if "profile smoke" in text and counts == list(range(1, code + 1)):
            return notebook
        assert time.monotonic() < deadline, counts
        time.sleep(0.5)
