"""The data sets that have a name: what their images are, and the hashes that they are verified by."""

from dataclasses import dataclass
from pathlib import Path

from mc1opt.dataset import CIFAR10_CLASS_NAMES, CIFAR10_SHAPE, DataShape
from mc1opt.paths import user_path

CIFAR10 = "cifar10"
CIFAR10_COUNTS = (50_000, 10_000)
CIFAR10_SHA256 = {
    "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
"""Of each array's bytes; images in the order N, C, H, W."""
FASHION_MNIST_SHA256 = {
    "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
"""Of each array's bytes: those of an IDX file behind its header."""
MNIST_SHA256 = {
    "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}

MNIST_COUNTS = (60_000, 10_000)
MNIST_SHAPE = DataShape(channels=1, size=28, classes=10)


@dataclass(frozen=True)
class NamedSet:
    """A data set that has a name."""

    name: str
    """As `--data` takes it."""
    title: str
    """As people write it."""
    counts: tuple[int, int]
    """Training and test images."""
    shape: DataShape
    class_names: tuple[str, ...] | None
    """In the order of the labels; None where the files hold them."""
    sha256: dict[str, str] | None
    """Of the arrays; None where nobody has published them, and the files' MD5 sums in torchvision must do."""


FASHION_MNIST_CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KMNIST_CLASS_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

NAMED = {
    named.name: named
    for named in (
        NamedSet(CIFAR10, "CIFAR-10", CIFAR10_COUNTS, CIFAR10_SHAPE, CIFAR10_CLASS_NAMES, CIFAR10_SHA256),
        NamedSet("cifar100", "CIFAR-100", CIFAR10_COUNTS, DataShape(3, 32, 100), None, None),
        NamedSet(
            "fashion_mnist",
            "Fashion-MNIST",
            MNIST_COUNTS,
            MNIST_SHAPE,
            FASHION_MNIST_CLASS_NAMES,
            FASHION_MNIST_SHA256,
        ),
        NamedSet("mnist", "MNIST", MNIST_COUNTS, MNIST_SHAPE, tuple("0123456789"), MNIST_SHA256),
        NamedSet("kmnist", "Kuzushiji-MNIST", MNIST_COUNTS, MNIST_SHAPE, KMNIST_CLASS_NAMES, None),
    )
}
"""By name, in the order in which people see them."""


def named_by_hash(sha256: dict[str, str]) -> NamedSet | None:
    """The data set whose arrays have these hashes."""
    return next((named for named in NAMED.values() if named.sha256 == sha256), None)


def data_path(text: str) -> Path:
    """What people mean by `--data`: one of the names, else a path.

    A name is always the data set, whatever lies here; `./mnist` or `mnist/` is a path.
    """
    path = Path(text) if text in NAMED else user_path(text)
    return path if text in NAMED or str(path) not in NAMED else path.absolute()


def named_at(path: Path | None) -> NamedSet | None:
    """The data set that a value of `data_path` names; CIFAR-10 for None; None for a path."""
    return NAMED.get(CIFAR10 if path is None else str(path))
