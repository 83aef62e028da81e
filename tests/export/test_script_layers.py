"""What the layers of the scripts compute, against what mc1opt itself does.

That whole networks are equal is in `test_script.py`.
"""

import pytest
import torch

from mc1opt.export.script_layers import whitening_filters
from mc1opt.models import whitening


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("count", [60, 2100])
def test_the_filters_are_those_of_mc1opt(kernel_size: int, count: int) -> None:
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(3)
    ours = whitening.whitening_filters(images, kernel_size)
    torch.testing.assert_close(whitening_filters(images, kernel_size), ours, rtol=1e-5, atol=1e-6)
