"""Build steps of the site: it also shows pages of the repository that stand outside of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "benchmarks/README.md",
    "demo/lal/README.md",
    "demo/pal/README.md",
    "demo/plits/README.md",
    "palscope/assets/clips/ATTRIBUTION.md",
]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and the files that they link to, under their paths in the repository."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        linked = (Path(page).parent / link for link in re.findall(r"\]\(([^):#]+)\)", text))
        for path in dict.fromkeys([page, *(each.as_posix() for each in linked)]):
            if (ROOT / path).is_file() and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links that lead from docs/ to these pages in a clone lead to them in the site too."""
    depth = page.file.src_uri.count("/")
    out, inside = "../" * (depth + 1), "../" * depth
    for target in PAGES:
        markdown = markdown.replace(f"]({out}{target}", f"]({inside}{target}")
    return markdown
