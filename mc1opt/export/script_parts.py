"""The parts of a training script that are the same, or nearly so, for every model."""

from mc1opt.config import Normalisation

IMPORTS = """import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
"""

_SEED_OF = '''
def seed_of(*parts):
    """The seed of a purpose, such as seed_of(SEED, "epoch", 3)."""
    text = "".join(f"{type(p).__name__}:{len(str(p))}:{p};" for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
'''

_LOAD_ARRAYS = '''
def load(folder, part):
    """Images (uint8, N x 32 x 32 x 3) and labels (N) of the part "train" or "test".

    The folder holds arrays: train_images.npy (N x 3 x 32 x 32), train_labels.npy
    and so on.
    """
    images = np.load(folder / f"{part}_images.npy").transpose(0, 2, 3, 1)
    labels = np.load(folder / f"{part}_labels.npy")
    images = torch.from_numpy(np.ascontiguousarray(images))
    return images, torch.from_numpy(labels.astype(np.int64))
'''

_LOAD_CIFAR10 = '''
def load(folder, part):
    """Images (uint8, N x 32 x 32 x 3) and labels (N) of the part "train" or "test".

    The folder may hold arrays, train_images.npy (N x 3 x 32 x 32), train_labels.npy
    and so on. Without them torchvision puts CIFAR-10 there.
    """
    if (folder / f"{part}_images.npy").exists():
        images = np.load(folder / f"{part}_images.npy").transpose(0, 2, 3, 1)
        labels = np.load(folder / f"{part}_labels.npy")
    else:
        from torchvision.datasets import CIFAR10

        data = CIFAR10(folder, train=part == "train", download=True)
        images, labels = data.data, np.array(data.targets)
    images = torch.from_numpy(np.ascontiguousarray(images))
    return images, torch.from_numpy(labels.astype(np.int64))
'''

_ORDER = '''
def stratified_order(labels):
    """A random order of the images whose beginnings have the classes in proportion."""
    labels = labels.numpy()
    generator = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    return torch.from_numpy(np.lexsort((labels, places)))
'''


def data(*, own: bool) -> str:
    """Seeds, reading the images, and which of them validate.

    Args:
        own: whether the images are others than CIFAR-10's, which torchvision does not have.
    """
    load = _LOAD_ARRAYS if own else _LOAD_CIFAR10
    return "\n".join([_SEED_OF, load, _ORDER])


NO_AUGMENTATION = '''
def augment(images, chosen, generator, fill):
    """A batch; nothing is done to the images."""
    return images[chosen.to(images.device)].permute(0, 3, 1, 2)
'''

REFLECT = '''
def reflect(positions):
    """Positions outside of the image, mirrored at its first or last pixel."""
    return 31 - (31 - positions.abs()).abs()
'''

NORMALISE = '''
class Normalise(nn.Module):
    """Takes a value of each channel away, and divides by another."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images):
        return (images.float() - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)
'''

WHITENING = '''
class Whiten(nn.Module):
    """A fixed convolution whose outputs are decorrelated on the training images."""

    def __init__(self, filters):
        super().__init__()
        self.register_buffer("weight", filters)

    def forward(self, images):
        return F.conv2d(images, self.weight)


def whitening_filters(images, kernel_size):
    """The eigenvectors of the patches, scaled to variance 1, then with the other sign.

    See Page, "How to train your ResNet" (2019), and Jordan, "94% on CIFAR-10 in 3.29
    seconds on a single GPU" (2024).
    """
    used = min(len(images), 2000)
    images = images[torch.arange(used) * len(images) // used].double()
    size = 3 * kernel_size**2
    patches = F.unfold(images, kernel_size).transpose(0, 1).reshape(size, -1)
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(patches, correction=0))
    vectors, eigenvalues = vectors.T.flip(0), eigenvalues.flip(0).clamp(min=0.0)
    # An eigenvector may have either sign: its first large value shall be positive.
    large = vectors.abs() >= 0.5 * vectors.abs().amax(1, keepdim=True)
    signs = vectors.gather(1, large.int().argmax(1, keepdim=True)).sign()
    filters = vectors * signs * (eigenvalues + 5e-4).rsqrt()[:, None]
    filters = filters.view(size, 3, kernel_size, kernel_size)
    return torch.cat([filters, -filters]).float()
'''

ACCURACY = '''
@torch.inference_mode()
def accuracy(network, images, labels):
    """The share of images whose greatest logit is that of their label."""
    network.eval()
    correct = 0
    for batch, target in zip(images.split(500), labels.split(500), strict=True):
        decisions = network(batch.permute(0, 3, 1, 2)).argmax(1)
        correct += (decisions == target).sum().item()
    return correct / len(images)
'''


def train(*, kernel_size: int | None, normalisation: Normalisation, convnet: bool) -> str:
    """The training loop.

    Args:
        kernel_size: of a whitened stem; None without one.
        normalisation: as the config says.
        convnet: whether there are convolutions, which are fastest in channels_last order.
    """
    sample = "    sample = images[:5000].permute(0, 3, 1, 2).float()\n"
    statistics = sample + "    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp(min=1.0)\n"
    if normalisation == "symmetric":
        statistics = sample if kernel_size is not None else ""
        statistics += "    mean, std = torch.full((3,), 127.5), torch.full((3,), 127.5)  # from -1 to 1\n"
    filters = ""
    if kernel_size is not None:
        filters = (
            "    normalised = (sample - mean[:, None, None]) / std[:, None, None]\n"
            f"    filters = whitening_filters(normalised, {kernel_size})\n"
        )
    build = "build_network(mean, std, filters)" if kernel_size is not None else "build_network(mean, std)"
    channels_last = ", memory_format=torch.channels_last" if convnet else ""
    return f'''
def train(images, labels, device, validation=None):
    """The trained network; its accuracy on the validation images is shown."""
{statistics}{filters}    fill = images.float().mean((0, 1, 2)).round().to(torch.uint8).to(device)
    torch.manual_seed(seed_of(SEED, "initialisation"))
    network = {build}
    network = network.to(device{channels_last})
    optimizer = build_optimizer(network)
    images, labels = images.to(device), labels.to(device)
    batch_size = min(BATCH_SIZE, len(images))
    steps = len(images) // batch_size
    precision = torch.autocast(
        device.type, torch.bfloat16, enabled=device.type in BFLOAT16
    )
    for epoch in range(EPOCHS):
        started = time.perf_counter()
        seed = seed_of(SEED, "epoch", epoch)
        torch.manual_seed(seed)  # for dropout
        generator = torch.Generator().manual_seed(seed)  # for order and augmentation
        order = torch.randperm(len(images), generator=generator)
        total = torch.zeros((), device=device)
        network.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps + step, EPOCHS * steps)
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch = augment(images, chosen, generator, fill)
            with precision:
                logits = network(batch)
                target = labels[chosen.to(device)]
                loss = F.cross_entropy(logits, target, label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        line = f"epoch {{epoch + 1:>3}}  loss {{total.item() / steps:.6f}}"
        if validation is not None:
            with precision:
                line += f"  validation {{accuracy(network, *validation):.4f}}"
        print(f"{{line}}  {{time.perf_counter() - started:.1f}} s", flush=True)
    return network
'''


MAIN = """
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--test", action="store_true", help="use the test images")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)  # tiny numbers, which are slow on a CPU, become 0
    images, labels = load(options.data, "train")
    order = stratified_order(labels)
    if options.test:
        network = train(images[order], labels[order], device)
        name, (images, labels) = "test", load(options.data, "test")
        images, labels = images.to(device), labels.to(device)
    else:
        count = len(labels) // 10
        chosen = order[count : count + TRAIN_IMAGES]
        name, validating = "validation", order[:count]
        held_back = images[validating].to(device), labels[validating].to(device)
        network = train(images[chosen], labels[chosen], device, held_back)
        images, labels = held_back
    result = accuracy(network, images, labels)  # in float32, as it is used
    print(f"{name} accuracy {result:.4f} ({len(images):,} images)")


if __name__ == "__main__":
    main()
"""
