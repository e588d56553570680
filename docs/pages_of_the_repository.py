"""Hook of MkDocs: adds texts that lie outside docs/ to the site, and adapts the links between them.

In the repository a link leads from file to file, so that it works wherever the files are shown; on the site
the model cards, the table of faults and the texts of the root have other places.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "tests/faults/README.md": "tested_faults.md",
    **{f"detectors/zoo/{path.name}": f"models/{path.name}" for path in ROOT.glob("detectors/zoo/*.md")},
}
"""Path in the repository → path of the page."""
PLACES = {page: path for path, page in PAGES.items()}

_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")
"""The target, without an anchor, of a link or image that is no address."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces links between files of the repository by links between pages."""
    here = page.file.src_uri
    folder = posixpath.dirname(PLACES.get(here, DOCS + here))

    def adapted(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        place = PAGES.get(target, target.removeprefix(DOCS) if target.startswith(DOCS) else None)
        if place is None:  # not on the site: MkDocs reports it
            return match[0]
        return match[1] + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return _LINK.sub(adapted, markdown)
