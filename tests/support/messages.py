"""The golden file of messages, `tests/messages.txt`: commands, and what people see of them.

`# TITLE` begins a section. Below `$ COMMAND` stand its output, its standard error and, in brackets, its exit
code if it is not 0. `mc1opt` runs in this process, with `<<< TEXT` as an answer; the shell runs all else.
"""

import fcntl
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.command import files_below

FILE = Path(__file__).parents[1] / "messages.txt"
ROOT = Path(__file__).parents[2]

Give = Callable[..., "subprocess.CompletedProcess[str]"]

VARIES = {
    r"own-[0-9a-f]{12}": "own-HASH",
    r"\b[0-9a-f]{64}\b": "SHA256",
    r"config id( +)[0-9a-f]{12}": r"config id\1HASH",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00)?": "TIME",
    r"\b[\d.,]+ (s|ms|MB|bytes)\b": r"# \1",
    r"\d\.\d{2,}": lambda number: re.sub(r"\d", "#", number[0]),
    r"(?m)^(#\d+ +#.+\.\d +)\d+": r"\1#",  # seconds of a trial, in the table of trials
    r"( +seconds +)[\d.]+": r"\1#",
}
"""What differs between machines and runs, and what stands for it in the file."""


def sections() -> dict[str, str]:
    """The text of each section by its title."""
    parts = re.split(r"^# (.+)\n", FILE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def given(section: str, give: Give) -> str:
    """Gives the commands of a section in the current folder; the section as it should be.

    A command that fails must change nothing.
    """
    here = str(Path.cwd())
    lines = []
    for command in re.findall(r"^\$ (.+)$", section, re.MULTILINE):
        program, *arguments = shlex.split(command)
        if program == "mc1opt":
            answer = ""
            if "<<<" in arguments:
                *arguments, _, answer = arguments
            before = own_files()
            ended = give(*arguments, answer=answer)
            assert not ended.returncode or own_files() == before, command
        else:
            ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        text = (ended.stdout + ended.stderr).replace(here, "HERE").replace(str(ROOT), "MC1OPT")
        for pattern, stands_for in VARIES.items():
            text = re.sub(pattern, stands_for, text)
        code = f"[{ended.returncode}]\n" if ended.returncode else ""
        lines.append(f"$ {command}\n{text}{code}")
    return "\n" + "\n".join(lines) + "\n"


def own_files() -> dict[str, bytes | None]:
    """What lies in the current folder, but for the cache of images and locks."""
    found = files_below(Path())
    return {name: found[name] for name in found if not name.startswith("cache") and ".lock" not in name}


def update(title: str, text: str) -> None:
    """Writes a section into the file; tests of others may do so at the same time."""
    with FILE.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        changed = {**sections(), title: text}
        beginning = FILE.read_text().partition("\n# ")[0]
        file.write(beginning + "\n" + "".join(f"# {title}\n{text}" for title, text in changed.items()))
        file.truncate()
