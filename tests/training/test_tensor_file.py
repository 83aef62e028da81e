"""Tensors in a file: they come back as they were, and what is damaged is never taken for them."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mc1opt.training.tensor_file import CHECKSUM, TensorFile, TensorFileError, read_tensors, write_tensors

ROOT = Path(__file__).parents[2]
PATH = Path("folder/file.safetensors")
TENSORS = {
    "matrix": torch.arange(6.0).reshape(2, 3),
    "filters": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "scalar": torch.tensor(3.5),
    "steps": torch.tensor(7),
    "none": torch.empty(0, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
}
TEXTS = {"name": "ä 1\n", "other": "{}"}


def same(file: TensorFile, tensors: dict[str, torch.Tensor], texts: dict[str, str]) -> bool:
    return (
        file.metadata == texts
        and file.tensors.keys() == tensors.keys()
        and all(
            found.dtype == tensors[name].dtype and torch.equal(found, tensors[name])
            for name, found in file.tensors.items()
        )
    )


def test_tensors_and_texts_come_back_equal():
    write_tensors(PATH, TENSORS, TEXTS)
    assert same(read_tensors(PATH), TENSORS, TEXTS)


def small_file() -> tuple[bytes, TensorFile]:
    write_tensors(PATH, {"a": torch.arange(3.0), "b": torch.tensor(2)}, {"text": "12"})
    return PATH.read_bytes(), read_tensors(PATH)


def test_a_changed_bit_is_noticed_wherever_it_is():
    content, whole = small_file()
    harmless, positions = 0, range(0, 8 * len(content), 7)  # one or two of every byte
    for position in positions:
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        PATH.write_bytes(changed)
        try:
            found = read_tensors(PATH)
        except TensorFileError:
            continue
        assert same(found, whole.tensors, whole.metadata)
        harmless += 1
    assert harmless < len(positions) / 20  # blanks that fill the header up


def test_a_file_that_is_cut_off_anywhere_is_refused():
    content, _ = small_file()
    for length in range(0, len(content), 3):
        PATH.write_bytes(content[:length])
        with pytest.raises(TensorFileError):
            read_tensors(PATH)


def test_a_file_that_goes_on_after_its_end_is_refused():
    content, _ = small_file()
    PATH.write_bytes(content + b"\0")
    with pytest.raises(TensorFileError, match="safetensors"):
        read_tensors(PATH)


def test_the_tensors_of_one_file_under_the_checksum_of_another_are_refused():
    write_tensors(PATH, TENSORS, TEXTS)
    wrong = {**read_tensors(PATH).metadata, CHECKSUM: "0" * 64}
    save_file(load_file(PATH), PATH, metadata=wrong)
    with pytest.raises(TensorFileError, match="checksum"):
        read_tensors(PATH)
    with pytest.raises(TensorFileError, match="checksum"):
        read_tensors(PATH, checksum_required=False)


def test_files_of_other_programs_have_no_checksum_and_are_read_where_none_is_required():
    PATH.parent.mkdir()
    save_file({"a": torch.ones(2)}, PATH)
    with pytest.raises(TensorFileError, match="checksum"):
        read_tensors(PATH)
    assert torch.equal(read_tensors(PATH, checksum_required=False).tensors["a"], torch.ones(2))


class Bomb:
    """What a pickle of it does when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_nothing_runs_of_a_pickle_in_its_place(write):
    PATH.parent.mkdir()
    write(Bomb(), PATH)
    with pytest.raises(TensorFileError, match="safetensors"):
        read_tensors(PATH)
    assert not Path("exploded").exists()
    if write is not torch.save:  # it is a real one
        pickle.loads(PATH.read_bytes())
        assert Path("exploded").exists()


def test_no_file_is_told_from_a_damaged_one():
    with pytest.raises(FileNotFoundError):
        read_tensors(PATH)


WRITER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from mc1opt.training.tensor_file import read_tensors, write_tensors

torch.set_num_threads(1)
path = Path("killed.safetensors")
generator = random.Random(0)
written = 0


def inode():
    return path.stat().st_ino if path.exists() else None


for round in range(12):
    before, pid = inode(), os.fork()
    if pid == 0:
        while True:
            written += 1
            write_tensors(path, {"all": torch.full((200_000,), float(written))}, {"written": str(written)})
    while inode() == before:
        time.sleep(0.001)
    time.sleep(generator.uniform(0.0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    file = read_tensors(path)
    assert set(file.tensors["all"].tolist()) == {float(file.metadata["written"])}
    written = int(file.metadata["written"])
print(written)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file():
    result = subprocess.run(
        [sys.executable, "-c", WRITER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 12
