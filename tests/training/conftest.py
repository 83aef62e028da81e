import pytest
import torch

from mc1opt.dataset import DataSet
from tests.support.images import write_images


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Easy images, shared by all tests: not to be changed."""
    return write_images(tmp_path_factory.mktemp("easy-images"))


@pytest.fixture(autouse=True)
def _settings_of_torch():
    """A training sets these for its process, which here is that of all tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
