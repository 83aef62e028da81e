"""Four convolutions and a wide linear layer: around the published models 8 to 11, which lie in it.

Copy this file to `./studies/`, edit it, and run it with `mc1opt run --study NAME`. These networks are for a
GPU: the published ones cost up to 277 million multiply-accumulates an image, and 54 million parameters.
"""

from optuna.trial import BaseTrial

from mc1opt.config import Config, ConvBlock, ConvNet, LinearLayer, Pooling
from mc1opt.suggest import suggest_augmentation, suggest_optimizer, suggest_schedule

TRAIN_IMAGES = 45_000
EPOCHS = 5
MAX_MACS = 300_000_000  # the published models, and little more


def search_space(trial: BaseTrial) -> Config:
    """Widths, kernel size, padding, the later poolings' stride, norm, dropout; and how they are trained."""
    kernel_size = trial.suggest_categorical("kernel_size", [3, 5])
    padding = trial.suggest_int("padding", 1, 2)
    late_pooling = Pooling(kind="max", stride=trial.suggest_int("late_pooling_stride", 1, 2))
    norm = trial.suggest_categorical("norm", ["none", "batch"])
    order = "pool_norm_activation"
    if norm == "batch":  # without a norm, both orders are the same function
        order = trial.suggest_categorical("order", ["pool_norm_activation", "norm_activation_pool"])
    poolings = (Pooling(kind="max"), late_pooling, None, late_pooling)
    # The published widths are the upper bounds: wider networks would be above MAX_MACS.
    bounds = (64, 128, 256, 256)
    dropout = trial.suggest_float("conv_dropout", 0.0, 0.5)
    blocks = tuple(
        ConvBlock(
            width=trial.suggest_int(f"conv{i}_width", bound // 4, bound, log=True),
            kernel_size=kernel_size,
            padding=padding,
            norm=norm,
            pooling=pooling,
            dropout=dropout if i == 1 else 0.0,
        )
        for i, (bound, pooling) in enumerate(zip(bounds, poolings, strict=True), start=1)
    )
    head = LinearLayer(
        width=trial.suggest_int("linear_width", 256, 4096, log=True),
        norm=norm,
        dropout=trial.suggest_float("linear_dropout", 0.0, 0.7),
    )
    return Config(
        architecture=ConvNet(blocks=blocks, order=order, head=(head,)),
        optimizer=suggest_optimizer(trial),
        schedule=suggest_schedule(trial),
        batch_size=trial.suggest_int("batch_size", 20, 512, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        augmentation=suggest_augmentation(trial),
        initialisation="torch",
        normalisation="symmetric",
    )


# Published model 8: the geometry that its table of layers implies, and the recipe of the source.
DEEP = {
    "kernel_size": 5,
    "padding": 1,
    "late_pooling_stride": 1,
    "norm": "none",
    "conv_dropout": 0.2,
    "conv1_width": 64,
    "conv2_width": 128,
    "conv3_width": 256,
    "conv4_width": 256,
    "linear_width": 4096,
    "linear_dropout": 0.5,
    "optimizer": "sgd",
    "sgd_momentum_kind": "none",
    "sgd_learning_rate": 0.1,
    "use_weight_decay": False,
    "schedule": "constant",
    "batch_size": 200,
    "label_smoothing": 0.0,
    "flip": False,
    "crop": 0,
    "cutout": 0,
}

PRESETS = {
    "cnn-deep": DEEP,
    "cnn-deep-adjusted": {**DEEP, "kernel_size": 3, "padding": 2, "late_pooling_stride": 2},
    "cnn-deep-batchnorm": {**DEEP, "norm": "batch", "order": "norm_activation_pool"},
    "cnn-deep-adam": {**DEEP, "optimizer": "adam", "adam_learning_rate": 0.001, "adam_beta2": 0.999},
}

STARTING_POINTS = PRESETS
