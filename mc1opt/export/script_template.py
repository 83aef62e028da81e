"""The template of exported training scripts, and a training script itself.

`mc1opt.export.script` reads it as text and replaces this docstring, the import of our own layers, the
constants, the layers of `build_network`, and the functions that a config's kinds name; what a script does not
use is left out. mc1opt does not import it: it needs torch. Lines are at most 88 wide, as in most people's
projects.
"""

import argparse
import copy
import hashlib
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mc1opt.export.script_layers import FixedConvolution, Normalise, Residual, channels, whitening_filters

SEED = 0
EPOCHS = 8
VALIDATION_IMAGES = 5_000
TRAIN_IMAGES = 45_000  # of those that validation leaves
SIZE = 32  # pixels, height and width of the images
CLASSES = 10
BATCH_SIZE = 64
LEARNING_RATE = 0.2  # the peak of the schedule
SGD_LEARNING_RATE = 0.2  # the peak for the classifier, norms and biases
WARMUP = 0.25  # share of all steps before the peak
START = 0.2  # first learning rate, as a share of the peak
END = 0.01  # last learning rate, as a share of the peak
MOMENTUM = 0.9
NESTEROV = True
BETA1 = 0.9
BETA2 = 0.999
WEIGHT_DECAY = 0.0005  # not on norms and biases
LABEL_SMOOTHING = 0.1
WEIGHT_AVERAGING = 0.5  # share of all steps, the last ones
FLIP = True
PROGRESSIVE_SIZE = 24  # pixels, in the first half of the epochs
CROP = 2  # pixels of shift each way
CUTOUT = 0  # pixels, side of the square
SPLIT_SEED = 20230504  # decides which images validate
BFLOAT16 = ("cuda",)  # devices where training computes in it


def seed_of(*parts):
    """The seed of a purpose, such as seed_of(SEED, "epoch", 3)."""
    text = "".join(f"{type(p).__name__}:{len(str(p))}:{p};" for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def load_arrays(folder, part):
    """Images (uint8, N x H x W x C) and labels (N) of the part "train" or "test".

    The folder holds train_images.npy (N x C x H x W), train_labels.npy and so on.
    """
    images = np.load(folder / f"{part}_images.npy").transpose(0, 2, 3, 1)
    labels = np.load(folder / f"{part}_labels.npy").astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)


def load_cifar10(folder, part):
    """As `load_arrays`; without arrays there, torchvision fetches CIFAR-10."""
    if (folder / f"{part}_images.npy").exists():
        return load_arrays(folder, part)
    from torchvision.datasets import CIFAR10

    data = CIFAR10(folder, train=part == "train", download=True)
    return torch.from_numpy(data.data), torch.tensor(data.targets)


def stratified_order(labels):
    """A random order of the images whose beginnings have the classes in proportion."""
    labels = labels.numpy()
    generator = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    return torch.from_numpy(np.lexsort((labels, places)))


def chosen_first(labels):
    """The images that were chosen to validate, then the others in a random order."""
    others = stratified_order(labels[VALIDATION_IMAGES:]) + VALIDATION_IMAGES
    return torch.cat([torch.arange(VALIDATION_IMAGES), others])


def reflect(positions):
    """Positions outside of the image, mirrored at its first or last pixel."""
    return (SIZE - 1) - ((SIZE - 1) - positions.abs()).abs()


def random_flips(_images, chosen, generator, _epoch):
    """Which of the chosen images are flipped: each with probability 1/2."""
    return torch.rand(len(chosen), generator=generator) < 0.5


def alternating_flips(images, chosen, _generator, epoch):
    """At random in the first epoch, then each in every second one (Jordan, 2024)."""
    generator = torch.Generator().manual_seed(seed_of(SEED, "flip"))
    first = torch.rand(len(images), generator=generator) < 0.5
    return first[chosen] ^ (epoch % 2 == 1)


def augment(images, chosen, generator, fill, epoch):
    """A batch, randomly shifted, flipped and cut out; `fill` colours the square."""
    count = len(chosen)
    rows = columns = torch.arange(SIZE).expand(count, SIZE)
    if CROP:
        shifts = torch.randint(-CROP, CROP + 1, (count, 2), generator=generator)
        rows, columns = reflect(rows + shifts[:, :1]), reflect(columns + shifts[:, 1:])
    if FLIP:
        flips = random_flips(images, chosen, generator, epoch)
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    chosen = chosen.to(images.device)
    batch = images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    if CUTOUT:
        centres = (torch.rand(count, 2, generator=generator) * SIZE).long()
        places = torch.arange(SIZE) - (centres - CUTOUT // 2)[:, :, None]
        inside = ((places >= 0) & (places < CUTOUT)).to(images.device)
        square = inside[:, 0, :, None] & inside[:, 1, None, :]
        batch = torch.where(square[..., None], fill, batch)
    return batch.permute(0, 3, 1, 2)


def shrink(batch, epoch):
    """Smaller images in the first half of the epochs (Tan and Le, 2021)."""
    if 2 * (epoch + 1) > EPOCHS:
        return batch
    size = (PROGRESSIVE_SIZE, PROGRESSIVE_SIZE)
    return F.interpolate(batch.float(), size, mode="bilinear", antialias=True)


def initialise(network):
    """He et al. (2015): normal with variance 2 / fan-in; biases are 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make_identity(network):
    """The first filters of convolutions hand their inputs on (Jordan, 2024)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight.detach()[: layer.in_channels])


def build_network(images):
    """From images (uint8, N x C x H x W) to one logit a class.

    Mean, standard deviation and fixed filters, if any, come from these training images.
    """
    normalise = Normalise(*channels(images))
    network = nn.Sequential(
        normalise,
        # 24 x 31 x 31
        FixedConvolution(whitening_filters(normalise(images), 2)),
        nn.GELU(),
        # 32 x 15 x 15
        nn.Conv2d(24, 32, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(32),
        nn.GELU(),
        Residual(
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.GELU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
        ),
        nn.GELU(),
        # to the 10 classes
        nn.Flatten(),
        nn.Linear(7200, 10),
    )
    initialise(network)
    make_identity(network)
    return network


def parameter_groups(network):
    """Weight decay is not for norms and biases."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def sgd(groups):
    """Stochastic gradient descent."""
    return torch.optim.SGD(
        groups,
        LEARNING_RATE,
        momentum=MOMENTUM,
        nesterov=NESTEROV,
        fused=True,
    )


def adam(groups):
    """Adam (Kingma and Ba, 2015)."""
    return torch.optim.Adam(groups, LEARNING_RATE, (BETA1, BETA2), fused=True)


def adamw(groups):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    return torch.optim.AdamW(groups, LEARNING_RATE, (BETA1, BETA2), fused=True)


def matrix(weight):
    """A view with a row for each output; filters are channels_last."""
    return weight.detach().movedim(1, -1).view(len(weight), -1)


def muon(groups):
    """Muon for hidden layers (Jordan et al., 2024), Nesterov SGD for the rest."""
    *hidden, classifier = groups[0]["params"]
    matrices = [matrix(weight) for weight in hidden]
    first = torch.optim.Muon(matrices, LEARNING_RATE, WEIGHT_DECAY, MOMENTUM)
    others = {"params": [classifier, *groups[1]["params"]], "lr": SGD_LEARNING_RATE}
    groups = [{"params": hidden}, others]
    second = torch.optim.SGD(groups, LEARNING_RATE, MOMENTUM, nesterov=True, fused=True)

    def step_matrices(*_):
        for values, weight in zip(matrices, hidden, strict=True):
            values.grad = matrix(weight.grad)
            weight.grad = None  # so that SGD passes over it
        first.param_groups[0]["lr"] = second.param_groups[0]["lr"]
        first.step()

    second.register_step_pre_hook(step_matrices)
    return second


def one_cycle(step, steps):
    """The share of the peak: linearly up to it, then linearly down."""
    peak = WARMUP * steps - 1.0
    if step <= peak and peak > 0.0:
        return START + (1.0 - START) * step / peak
    return 1.0 + (END - 1.0) * ((step - peak) / (steps - 1.0 - peak))


def cosine(step, steps):
    """The share of the peak: from 1 to 0 along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


def constant(_step, _steps):
    """The share of the peak: 1 in every step."""
    return 1.0


def balanced_weights(labels):
    """What an image of each class counts in the loss: all classes the same."""
    counts = labels.bincount(minlength=CLASSES).float()
    weights = len(labels) / (CLASSES * counts)
    return torch.where(counts > 0, weights, torch.zeros_like(counts))


@torch.no_grad()
def update_average(averaged, network, step, steps):
    """The mean of the weights after the last steps (Izmailov et al., 2018)."""
    number = max(0, step - math.ceil(steps * (1.0 - WEIGHT_AVERAGING)))
    values = network.state_dict()
    for name, mean in averaged.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(values[name], 1 / (number + 1))


@torch.inference_mode()
def accuracy(network, images, labels):
    """The share of images whose greatest logit is that of their label."""
    network.eval()
    correct = 0
    for batch, target in zip(images.split(500), labels.split(500), strict=True):
        decisions = network(batch.permute(0, 3, 1, 2)).argmax(1)
        correct += (decisions == target).sum().item()
    return correct / len(images)


def train(images, labels, device, validation=None):
    """The trained network; its accuracy on the validation images is shown."""
    fill = images.float().mean((0, 1, 2)).round().to(torch.uint8).to(device)
    torch.manual_seed(seed_of(SEED, "initialisation"))
    network = build_network(images[:5000].permute(0, 3, 1, 2).float())
    network = network.to(device, memory_format=torch.channels_last)
    averaged = copy.deepcopy(network)
    optimizer = sgd(parameter_groups(network))
    images, labels = images.to(device), labels.to(device)
    weights = balanced_weights(labels)
    batch_size = min(BATCH_SIZE, len(images))
    steps = len(images) // batch_size
    scheduler = LambdaLR(optimizer, lambda step: one_cycle(step, EPOCHS * steps))
    enabled = device.type in BFLOAT16
    precision = torch.autocast(device.type, torch.bfloat16, enabled=enabled)
    for epoch in range(EPOCHS):
        started = time.perf_counter()
        seed = seed_of(SEED, "epoch", epoch)
        torch.manual_seed(seed)  # for dropout
        generator = torch.Generator().manual_seed(seed)  # for order and augmentation
        order = torch.randperm(len(images), generator=generator)
        total = torch.zeros((), device=device)
        network.train()
        for step in range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch = augment(images, chosen, generator, fill, epoch)
            batch = shrink(batch, epoch)
            with precision:
                logits = network(batch)
                target = labels[chosen.to(device)]
                loss = F.cross_entropy(logits, target, weights, label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            update_average(averaged, network, epoch * steps + step, EPOCHS * steps)
            total += loss.detach()
        line = f"epoch {epoch + 1:>3}  loss {total.item() / steps:.6f}"
        if validation is not None:
            with precision:
                line += f"  validation {accuracy(averaged, *validation):.4f}"
        print(f"{line}  {time.perf_counter() - started:.1f} s", flush=True)
    return averaged


def main():
    """Trains, and prints the accuracy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--test", action="store_true", help="use the test images")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)  # tiny numbers, which are slow on a CPU, become 0
    images, labels = load_cifar10(options.data, "train")
    if options.test:
        order = stratified_order(labels)
        network = train(images[order], labels[order], device)
        name, (images, labels) = "test", load_cifar10(options.data, "test")
        images, labels = images.to(device), labels.to(device)
    else:
        order = stratified_order(labels)
        chosen = order[VALIDATION_IMAGES : VALIDATION_IMAGES + TRAIN_IMAGES]
        name, validating = "validation", order[:VALIDATION_IMAGES]
        held_back = images[validating].to(device), labels[validating].to(device)
        network = train(images[chosen], labels[chosen], device, held_back)
        images, labels = held_back
    result = accuracy(network, images, labels)  # in float32, as it is used
    print(f"{name} accuracy {result:.4f} ({len(images):,} images)")


if __name__ == "__main__":
    main()
