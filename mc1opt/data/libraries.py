"""Whether torch and torchvision were built for each other.

torchvision registers its operators with torch when it is imported. If the two do not match, the import fails
with "operator torchvision::nms does not exist" or a missing symbol, which does not tell what to do.
"""

import contextlib
import re
from collections.abc import Iterator
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from mc1opt.errors import Mc1optError
from mc1opt.program import installed
from mc1opt.text import first_line

PATCHES = 10
"""More patch releases than a minor release has ever had; they are built alike."""
_BUILD = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")
"""Local versions that say what a release was built for: the "cpu" of 2.10.0+cpu."""


def check_libraries() -> None:
    """Compares the installed versions of torch and torchvision without importing them.

    Accepts a missing package or an unknown version: then the import decides.

    Raises:
        Mc1optError: they do not match; names both versions and what to do.
    """
    try:
        torch, torchvision = (Version(installed(name) or "missing") for name in ("torch", "torchvision"))
    except InvalidVersion:
        return
    if not (_same_release(torch) and _same_build(torch, torchvision)):
        raise _error("do not match")


@contextlib.contextmanager
def importing_torchvision() -> Iterator[None]:
    """Turns errors of importing torchvision into one that says what to do.

    Raises:
        Mc1optError: with the reason, both versions and what to do.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise _error(f"cannot be used together ({type(error).__name__}: {first_line(error)})") from error


def _same_release(torch: Version) -> bool:
    """Whether torchvision requires this torch, or another patch release of it."""
    patches = [f"{torch.major}.{torch.minor}.{patch}" for patch in range(PATCHES)]
    return all(
        any(requirement.specifier.contains(version, prereleases=True) for version in (str(torch), *patches))
        for requirement in map(Requirement, requires("torchvision") or [])
        if requirement.name == "torch"
    )


def _same_build(torch: Version, torchvision: Version) -> bool:
    builds = [package.local for package in (torch, torchvision) if _BUILD.fullmatch(package.local or "")]
    return len(set(builds)) < 2


def _error(what: str) -> Mc1optError:
    pair = " and ".join(
        f"{package} {installed(package) or '(not installed)'}" for package in ("torch", "torchvision")
    )
    return Mc1optError(
        f"{pair} {what}: they must be built for each other. Install both together, from the same index:\n"
        "  pip install --force-reinstall torch torchvision\n"
        "Add the --index-url that torch came from, if any, such as that of CPU-only builds."
    )
