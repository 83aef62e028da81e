"""Sources whose commands are real processes: they fetch small images of our own, or fail in every way."""

from pathlib import Path

from mc1opt.data.fetch import Source
from mc1opt.data.formats import read_files
from tests.support.image_sets import write_binary_folder


class ShellSources:
    """Makes sources. Each notes in the file `calls` its name and its process id when it begins."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.images = folder / "images"
        self.others = folder / "others"
        self.arrays = write_binary_folder(self.images)
        write_binary_folder(self.others, train_images=100)

    def shell(self, script: str, name: str, total_bytes: int = 1_000_000) -> Source:
        """One whose command is a script of the shell, in the folder that it fetches into."""
        script = f"echo '{name}' $$ >> '{self.calls}'\n{script}"
        return Source(name, total_bytes, lambda _folder: ["/bin/sh", "-c", script], read_files)

    def good(self, seconds: float = 0.0, name: str = "good") -> Source:
        """Gives the images after so many seconds, in which nothing arrives."""
        return self.shell(f"sleep {seconds}; cp '{self.images}'/* .", name)

    def silent(self) -> Source:
        """Never sends a thing; what waits is a child of its command."""
        return self.shell("sleep 600 & echo child $! >> " + f"'{self.calls}'; wait", "silent")

    def trickling(self) -> Source:
        """Sends a few bytes ever and again."""
        return self.shell("while true; do echo drop >> drops; sleep 0.05; done", "trickling")

    def broken(self, last_words: str = "Error: no route") -> Source:
        """Ends with an error."""
        return self.shell(f"echo '{last_words}' >&2; exit 3", "broken")

    def other(self) -> Source:
        """Gives images that are not those."""
        return self.shell(f"cp '{self.others}'/* .", "other")

    def asked(self) -> list[str]:
        """The names of the sources that were asked, in that order."""
        return [name for name, _ in self._calls() if name != "child"]

    def processes(self) -> list[int]:
        """The processes of their commands."""
        return [int(pid) for _, pid in self._calls()]

    def _calls(self) -> list[list[str]]:
        return [line.split() for line in self.calls.read_text().splitlines()] if self.calls.exists() else []
