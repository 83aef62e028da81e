"""Many image files are decoded as one is, here and in parallel; their processes never outlive this one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mc1opt.data import decode
from mc1opt.data.decode import decode_images
from mc1opt.data.image_files import read_image
from mc1opt.errors import DataError
from tests.support.command import child_processes, wait_until
from tests.support.photographs import write_images
from tests.workers.test_process import ROOT, wait_until_gone

SIZE = 24
PIXELS = Path("pixels")


def files(count: int, **options: object) -> list[Path]:
    write_images(Path("images"), count, **options)
    return sorted(Path("images").iterdir())


@pytest.fixture(params=[1, 2], ids=["here", "in parallel"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(decode, "FEW", 1)
    monkeypatch.setattr(decode, "CHUNK", 4)
    monkeypatch.setattr(decode, "cpus", lambda: request.param)
    return request.param


def pixels(count: int) -> np.ndarray:
    return np.fromfile(PIXELS, np.uint8).reshape(count, 3, SIZE, SIZE)


def test_the_pixels_are_those_that_reading_one_file_gives(processes: int) -> None:
    paths = files(11)
    told = []
    decoded = decode_images(paths, SIZE, PIXELS, told.append)
    np.testing.assert_array_equal(pixels(11), [read_image(path, 3, SIZE) for path in paths])
    assert (decoded.unreadable, decoded.grey, decoded.sides) == ({}, False, [40] * 11)
    assert told == [4, 8, 11]


def test_unreadable_files_are_named_with_their_place(processes: int) -> None:
    paths = [*files(6), Path("none.png")]
    paths[2].write_bytes(b"damaged")
    decoded = decode_images(paths, SIZE, PIXELS, lambda _: None)
    assert {place: why.partition(" is ")[0] for place, why in decoded.unreadable.items()} == {
        2: str(paths[2]),
        6: "there",
    }
    assert len(decoded.sides) == 5
    np.testing.assert_array_equal(pixels(7)[5], read_image(paths[5], 3, SIZE))


@pytest.mark.parametrize(("mode", "grey"), [("L", True), ("1", True), ("LA", True), ("RGB", False)])
def test_whether_all_images_are_grey(mode: str, grey: bool, processes: int) -> None:
    assert decode_images(files(5, mode=mode), SIZE, PIXELS, lambda _: None).grey is grey


def test_a_full_disk_is_an_error_of_the_disk(processes: int) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    PIXELS.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        decode_images(files(5), SIZE, PIXELS, lambda _: None)


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "FEW", 1)
    monkeypatch.setattr(decode, "cpus", lambda: 2)
    monkeypatch.setattr(decode, "COMMAND", [sys.executable, "-c", "import os; os._exit(1)"])
    with pytest.raises(DataError, match="died"):
        decode_images(files(5), SIZE, PIXELS, lambda _: None)


def test_an_interrupt_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "FEW", 1)
    monkeypatch.setattr(decode, "CHUNK", 1)
    monkeypatch.setattr(decode, "cpus", lambda: 2)
    started = []

    def interrupt(_: int) -> None:
        started.extend(child_processes(os.getpid()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_images(files(20), SIZE, PIXELS, interrupt)
    assert len(started) >= 2  # `ps` among them
    assert all(wait_until_gone(pid, 10.0) for pid in started)


def test_a_parent_that_is_killed_leaves_no_process() -> None:
    files(4)
    code = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from mc1opt.data import decode\n"
        "decode.FEW, decode.CHUNK, decode.cpus = 1, 1, lambda: 2\n"
        "paths = sorted(Path('images').iterdir())\n"
        "decode.decode_images(paths, 24, Path('pixels'), lambda done: time.sleep(600))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    wait_until(lambda: len(child_processes(process.pid)) == 2)
    children = child_processes(process.pid)
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert all(wait_until_gone(pid, 10.0) for pid in children)
