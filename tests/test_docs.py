"""The site is built from docstrings and pages, without a network, and its links lead somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import wsolkit

ROOT = Path(wsolkit.__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "docs" / "conf.py").is_file(), reason="needs a clone of the project")


class Links(HTMLParser):
    """Where a page leads, and what it loads."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets, self.loads = [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            self.targets.append(found["href"])
        if tag in ("script", "img", "link") and (found.get("src") or found.get("href")):
            self.loads.append(found.get("src") or found["href"])


def broken(pages) -> list[str]:
    """Local targets that are not there, and whatever would be loaded from a network."""
    wrong = []
    for page in pages:
        links = Links(page)
        wrong += [f"{page.name} loads {target}" for target in links.loads if re.match("(https?:)?//", target)]
        local = [target for target in [*links.targets, *links.loads] if not re.match(r"\w+:|#|//", target)]
        for target in local:
            name = target.split("#")[0].split("?")[0]
            if name and not (page.parent / name).exists():
                wrong.append(f"{page.name} -> {target}")
    return wrong


def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees"]
    ended = subprocess.run([*command, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "how_it_works.html", "maps.html"} <= {page.name for page in pages}
    assert "norm_map" in (tmp_path / "site" / "reference" / "maps.html").read_text()
    assert broken(pages) == []


def test_links_of_the_committed_gallery_lead_somewhere():
    demo = ROOT / "figures" / "demo"
    assert broken(sorted(demo.glob("*.html"))) == []


def test_anchors_of_the_gallery_are_there():
    text = (ROOT / "figures" / "demo" / "index.html").read_text()
    wanted = set(re.findall(r'href="#([^"]+)"', text))
    assert wanted
    assert wanted <= set(re.findall(r'id="([^"]+)"', text))
