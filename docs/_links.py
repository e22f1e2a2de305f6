"""Links that leave docs/, on the site.

Pages link to files of the repository as a viewer of repositories reads them, `../models/mnist/`.
Here each such file becomes part of the site, under `repository/`, Markdown as a page and a folder
as a list of its files, and the links follow.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_CODE = re.compile(r"(^```.*?^```[ ]*$|`[^`\n]+`)", re.M | re.S)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^()\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file that pages link to outside docs/, and what those link to."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    while pages:
        page = pages.pop()
        for link in _LINK.findall(_CODE.sub("", _text(page))):
            target = _target(page, link)
            uri = _uri(target)
            if not target.exists() or target.is_relative_to(DOCS) or uri in files.src_uris:
                continue
            if uri.endswith(".md"):
                files.append(File.generated(config, uri, content=_text(target)))
                pages.append(target)
            else:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to where their targets are on the site."""
    uri = page.file.src_uri
    source = DOCS / uri
    if uri.startswith("repository/"):
        source = ROOT / uri.removeprefix("repository/").removesuffix("/files.md")

    def moved(link: re.Match[str]) -> str:
        return os.path.relpath(_uri(_target(source, link[1])), os.path.dirname(uri))

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(moved, prose) for prose in parts[::2]]
    return "".join(parts)


def _target(page: Path, link: str) -> Path:
    return Path(os.path.normpath((page if page.is_dir() else page.parent) / link))


def _text(page: Path) -> str:
    """A page as written; of a folder, the list of its files."""
    if not page.is_dir():
        return page.read_text("utf-8")
    names = sorted(file.name for file in page.iterdir() if file.is_file())
    return f"# {page.name}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)


def _uri(target: Path) -> str:
    """Where a file of the repository stands among the site's sources."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    own = target.relative_to(ROOT).as_posix()
    return f"repository/{own}/files.md" if target.is_dir() else f"repository/{own}"
