"""Whether the installed libraries are ones that palscope works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

CHECKED = ("torch", "transformers", "transformer-lens", "nnsight", "accelerate")
"""Libraries whose inner workings palscope builds on: another version fails anywhere, or is wrong.

Streamlit draws the pages alone, and is checked where a page begins.
"""


def check_versions(*names: str) -> None:
    """Check installed libraries against the ranges that palscope was installed with.

    Nothing is known of palscope run from a folder that was never installed; then nothing is
    checked.

    Args:
        names: of libraries that palscope depends on.

    Raises:
        ImportError: one is missing, or older or newer than palscope works with.
    """
    try:
        needs = [Requirement(each) for each in requires("palscope") or ()]
    except PackageNotFoundError:
        return
    ranges = {each.name: each.specifier for each in needs if each.marker is None}  # no extras
    for name in names:
        wanted = f"{name}{ranges[name]}"
        try:
            found = version(name)
        except PackageNotFoundError as error:
            raise ImportError(
                f"palscope needs {wanted}, which is not installed: pip install '{wanted}'."
            ) from error
        # A vendor's build of 2.11 may call itself 2.11.0a0+git: what counts is the release.
        if not ranges[name].contains(Version(found).base_version):
            raise ImportError(
                f"palscope needs {wanted}, but {found} is installed: pip install '{wanted}'. "
                "constraints/pinned.txt has the versions that are tested together."
            )
