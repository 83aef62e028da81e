"""How this program was called, for commands that people copy."""

import shlex
import shutil
import sys
from pathlib import Path

NAME = "mc1opt"


def program() -> str:
    """The program as a shell finds it: its bare name, or the path it was called by, quoted if need be."""
    called = sys.argv[0]
    if Path(called).name != NAME:  # such as a test, or a notebook
        return NAME
    found = shutil.which(NAME)
    is_found = found is not None and Path(called).is_absolute() and Path(found).samefile(called)
    return NAME if is_found else shlex.quote(called)
