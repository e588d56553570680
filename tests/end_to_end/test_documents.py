"""The documentation is built without warnings and without a network; every link and picture exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.conftest import PROJECT_ROOT

TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "detectors/zoo/*.md", "tests/**/*.md", ".github/**/*.md")
    for path in PROJECT_ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
"""A proxy that does not exist."""


class Page(HTMLParser):
    """Anchors, links and loaded files of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag in ("a", "area") and values.get("href"):
            self.links.append(values["href"])
        if tag in ("img", "script", "source", "iframe", "video") and values.get("src"):
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=PROJECT_ROOT,
        env={**os.environ, **NO_NETWORK, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    """All pages of the site."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def target_of(site: Path, page: Path, link: str) -> Path:
    """The file that a link of a page leads to."""
    place = unquote(urlsplit(link).path)
    target = site / place.removeprefix("/") if place.startswith("/") else page.parent / place
    if not place:
        return page
    return target / "index.html" if place.endswith("/") or target.is_dir() else target


def test_every_link_of_the_site_leads_to_a_page_and_an_anchor(site, pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme or path.name == "404.html":
                continue
            target, anchor = target_of(site, path, link), unquote(urlsplit(link).fragment)
            known = pages.get(Path(os.path.normpath(target)))
            if not target.is_file() or (anchor and known and anchor not in known.anchors):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert wrong == []


def test_the_site_loads_nothing_from_other_servers(site, pages):
    for path, page in pages.items():
        for link in page.loaded:
            assert not urlsplit(link).netloc, f"{path.relative_to(site)} loads {link}"
            if path.name != "404.html":
                assert target_of(site, path, link).is_file(), f"{path.relative_to(site)}: {link}"


def test_every_page_is_in_the_navigation(site):
    config = yaml.safe_load((PROJECT_ROOT / "mkdocs.yml").read_text())

    def pages_in(entry):
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [page for value in values for page in pages_in(value)]

    listed = pages_in(config["nav"])
    assert len(listed) == len(set(listed))
    expected = {
        path.relative_to(PROJECT_ROOT / "docs").as_posix() for path in PROJECT_ROOT.glob("docs/**/*.md")
    }
    assert expected <= set(listed)
    for page in listed:
        assert (site / page.removesuffix(".md") / "index.html").exists() or page == "index.md"


def test_the_reference_documents_the_public_names(pages, site):
    import mote

    anchors = pages[site / "api" / "index.html"].anchors
    ends = {anchor.rpartition(".")[2] for anchor in anchors}
    assert {name for name in mote.__all__ if not name.startswith("_")} <= ends


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_every_link_of_a_text_leads_to_a_file_or_is_an_address(path):
    for match in LINK.finditer(re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)):
        link = match[1] or match[2]
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link
        elif parts.path:
            assert (path.parent / unquote(parts.path)).exists(), f"{path.name}: {link}"


def test_the_readme_fits_on_150_lines():
    assert len((PROJECT_ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", sorted(PROJECT_ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_a_page_has_at_most_about_200_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 210


def test_the_moving_picture_of_the_front_page_is_small():
    assert (PROJECT_ROOT / "docs" / "moving.webp").stat().st_size < 1_500_000
