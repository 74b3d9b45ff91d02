"""EfficientNet-Lite0: EfficientNet without squeeze-and-excitation and with relu6, made for small machines."""

from typing import NamedTuple

from keras import KerasTensor, layers

from zoo.layers.vision import DepthwiseConvolution, StoredNormalization

# What a layer of `efficientnet_lite0` that reduces a grid is called in VisionEncoderConfig.stages, and its channels.
LITE0_STAGES = {"stride4": 24, "stride8": 40, "stride16": 112, "stride32": 320, "last": 1280}


class _Stage(NamedTuple):
    """Blocks with the same output; the first of them may halve the grid."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


_LITE0 = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite0(images: KerasTensor) -> dict[str, KerasTensor]:
    """Calls a new EfficientNet-Lite0 without its classifier.

    Args:
        images: (B, height, width, 3), red first, (pixels - 127) / 128.

    Returns:
        The features at each of LITE0_STAGES, (B, height / stride, width / stride, channels), where the strides are 4,
        8, 16, 32 and for "last" 32.

    Source: Tan & Le 2019, table 1, without what section 5 of the Lite variants' announcement leaves out (Liu 2020).
    """
    x = _convolution(images, 32, 3, "stem", stride=2)
    stride, number, found = 2, 0, {}
    for stage in _LITE0:
        for repeat in range(stage.repeats):
            x = _block(x, stage, stage.stride if repeat == 0 else 1, f"block_{number}")
            number += 1
        stride *= stage.stride
        found[f"stride{stride}"] = x
    found["last"] = _convolution(x, LITE0_STAGES["last"], 1, "top")
    return {name: found[name] for name in LITE0_STAGES}


def _block(x: KerasTensor, stage: _Stage, stride: int, name: str) -> KerasTensor:
    """Widens, convolves each channel and narrows again; the input is added where the shape stayed."""
    y = x
    if stage.expansion > 1:
        y = _convolution(y, stage.expansion * x.shape[-1], 1, f"{name}_expand")
    y = DepthwiseConvolution(
        stage.kernel_size,
        stride,
        "same",
        use_bias=False,
        data_format="channels_last",
        name=f"{name}_depthwise",
    )(y)
    y = _normalized(y, f"{name}_depthwise")
    y = _convolution(y, stage.channels, 1, f"{name}_project", activation=False)
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def _convolution(
    x: KerasTensor, channels: int, kernel_size: int, name: str, stride: int = 1, activation: bool = True
) -> KerasTensor:
    x = layers.Conv2D(channels, kernel_size, stride, "same", use_bias=False, data_format="channels_last", name=name)(x)
    return _normalized(x, name, activation)


def _normalized(x: KerasTensor, name: str, activation: bool = True) -> KerasTensor:
    x = StoredNormalization(axis=-1, epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu6")(x) if activation else x
