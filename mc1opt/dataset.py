"""Which images a training is about: their shape, their classes, and where they are. No torch here.

What the images are belongs to the data set, and never to a config: a config says what is built for them.
"""

from typing import Any, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

CIFAR10_CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""In the order of the labels 0 to 9."""
LARGEST_SIZE = 256
"""Most pixels, height and width."""
MOST_CLASSES = 1000


class DataShape(NamedTuple):
    """What a network must know of its data: an image is channels x size x size and has one of the classes."""

    channels: int
    """1 for grey, 3 for RGB."""
    size: int
    """Pixels, height and width."""
    classes: int


CIFAR10_SHAPE = DataShape(channels=3, size=32, classes=10)


class Task(BaseModel):
    """What is to be classified: the shape of the images, and the classes. CIFAR-10's by default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    channels: int = Field(default=CIFAR10_SHAPE.channels, ge=1, le=3)
    """1 for grey images, 3 for RGB."""
    size: int = Field(default=CIFAR10_SHAPE.size, ge=8, le=LARGEST_SIZE)
    """Pixels, height and width."""
    class_names: tuple[str, ...] = Field(default=CIFAR10_CLASS_NAMES, min_length=2, max_length=MOST_CLASSES)
    """In the order of the labels, from 0."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.size, self.size

    @property
    def shape(self) -> DataShape:
        """What a network must know of these images."""
        return DataShape(self.channels, self.size, self.classes)

    @model_validator(mode="after")
    def _names_differ(self) -> "Task":
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("two classes have the same name")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is as CIFAR-10's: stored JSON reads as before there were other shapes."""
        content: dict[str, Any] = serialise(self)
        for field, info in type(self).model_fields.items():
            if not info.is_required() and getattr(self, field) == info.default:
                content.pop(field, None)
        return content


class DataSet(Task):
    """Where the images are, as arrays that workers map into memory, and which ones they are."""

    name: str
    """Of a known data set, such as "cifar10", or "own-" and the beginning of the hash for other images."""
    folder: str
    """Holds train_images.npy, train_labels.npy, test_images.npy, test_labels.npy and source.json."""
    sha256: str
    """In hexadecimal: of CIFAR-10's training images; of other data, of all its images and labels."""
    train_images: int = Field(ge=1)
    """All training images: 50,000 for CIFAR-10."""
    validation_images: int = Field(ge=0)
    """How many of them are kept back for validation: 5,000 for CIFAR-10; 0 for a training on all of them."""
    validation_first: bool = False
    """Whether the first training images validate, because somebody chose them; else the split decides."""


CIFAR10_DATA = DataSet(name="cifar10", folder="", sha256="", train_images=50_000, validation_images=5_000)
"""What is known of these images without having them: enough for a search space."""
