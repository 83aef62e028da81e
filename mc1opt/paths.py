"""Paths as people write them: `~` is their home folder.

A shell sees to that only where a word begins with it: not in `--data=~/images`, not within quotes, not in
`sqlite:///~/x.db`, and not in the files from which many variables come.
"""

from pathlib import Path

from mc1opt.errors import UsageError


def user_path(text: str) -> Path:
    """The path that a person means: `~` and `~user` at its beginning are home folders.

    What lies here under such a name is reached by `./~`. Its path becomes an absolute one: `Path` leaves "./"
    out, and whoever reads it next would take it for a home folder.

    Raises:
        UsageError: there is no such user, or nobody knows this one's home folder.
    """
    path = Path(text)
    if not text.startswith("~"):
        return path.absolute() if str(path).startswith("~") else path
    try:
        return path.expanduser()
    except RuntimeError as error:
        user = path.parts[0].removeprefix("~")
        why = f"there is no user {user!r} here" if user else "this user has no home folder"
        raise UsageError(
            f"{text}: {why}. Give the path in full, or ./{text} for what lies here under that name."
        ) from error
