"""Draw the gallery's figures anew: `make gallery`, or `python docs/_gallery.py RUN …` for some.

The page itself says how: each command, and each sample of Python, writes `runs/RUN`, and the images
below it are figures of that run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
IMAGES = ROOT / "docs" / "images" / "gallery"
LARGE = 60_000
"""Bytes from which on an image is stored in 256 colours: a third of the size."""


@dataclass
class Drawing:
    """What writes a run, and the figures of it that are shown.

    Attributes:
        language: `bash` or `python`.
        source: the block.
        run: the folder of its figures.
        figures: their names.
    """

    language: str
    source: str
    run: str
    figures: list[str] = field(default_factory=list)


def drawings() -> list[Drawing]:
    """The page's blocks, with the images below each."""
    found: list[Drawing] = []
    block = r"```(bash|python)\n(.*?)```"
    image = r"!\[[^\]]*\]\(images/gallery/(\w+)/([\w.-]+)\.png\)"
    for each in re.finditer(f"{block}|{image}", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        language, source, run, figure = each.groups()
        if language:
            (run,) = set(re.findall(r"\bruns/(\w+)", source))
            found.append(Drawing(language, source, run))
        else:
            assert found and found[-1].run == run, f"{figure} does not stand below runs/{run}"
            found[-1].figures.append(figure)
    return found


def draw(drawing: Drawing, folder: Path) -> None:
    """Run a block, with `folder` in place of the one where `runs/` would be."""
    if drawing.language == "python":
        # A package that is installed is found anywhere; here it may be this checkout instead.
        told, place = ["-c", drawing.source], {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *told], cwd=folder, env=os.environ | place, check=True)
        return
    words = shlex.split(drawing.source.replace("\\\n", "").replace("runs/", f"{folder}/runs/"))
    subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=True)


def store(drawing: Drawing, folder: Path) -> None:
    """Keep the figures that the page shows."""
    for figure in drawing.figures:
        path = IMAGES / drawing.run / f"{figure}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = folder / "runs" / drawing.run / path.name
        with Image.open(drawn) as image:
            colours = image.convert("RGB")
            if drawn.stat().st_size > LARGE:
                colours = colours.quantize(
                    method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
                )
            colours.save(path, optimize=True)


if __name__ == "__main__":
    for drawing in drawings():
        if drawing.run in sys.argv[1:] or not sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                draw(drawing, Path(folder))
                store(drawing, Path(folder))
