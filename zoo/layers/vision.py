"""From images to a grid of vectors: patches, a class token, positions in two dimensions."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import numpy as np
from keras import KerasTensor, ops

from zoo.attention.positions import sinusoidal

Grid = tuple[int, int]


@keras.saving.register_keras_serializable("zoo")
class StoredNormalization(keras.layers.BatchNormalization):
    """Batch normalization that always uses its stored statistics: the small batches of a fine-tuning would spoil them.

    Its scale and shift still learn. Asking a layer for training=False is not enough: a functional model that is called
    with training=True overrules that.

    Source: Ioffe & Szegedy 2015, section 3.1 (inference).
    """

    def call(self, inputs: KerasTensor, training: bool | None = None, mask: KerasTensor | None = None) -> KerasTensor:
        return super().call(inputs, training=False)


_by_shifts = contextvars.ContextVar("depthwise convolutions by shifts", default=False)


@contextlib.contextmanager
def depthwise_by_shifts() -> Iterator[None]:
    """Has depthwise convolutions written as XLA likes them on a CPU, in whatever is traced inside the block.

    There XLA takes 60 times as long for the operation itself as for a sum over shifted images, which without XLA takes
    12 times as long as the operation. On JAX, where all is XLA's, shifts are used without being asked for.
    """
    token = _by_shifts.set(True)
    try:
        yield
    finally:
        _by_shifts.reset(token)


@keras.saving.register_keras_serializable("zoo")
class DepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """Convolves each channel by its own kernel, as a sum over shifted images where that is faster.

    The arguments are those of Keras' DepthwiseConv2D.

    Source: see depthwise_by_shifts.
    """

    def call(self, inputs: KerasTensor) -> KerasTensor:
        on_cpu = all(device.startswith("cpu") for device in keras.distribution.list_devices())
        wanted = on_cpu and (_by_shifts.get() or keras.backend.backend() == "jax")
        if (
            not wanted
            or self.data_format != "channels_last"
            or (self.depth_multiplier, *self.dilation_rate) != (1, 1, 1)
        ):
            return super().call(inputs)
        sizes, margins = zip(*(self._axis(i, side) for i, side in enumerate(inputs.shape[1:3])))
        x = ops.pad(inputs, ((0, 0), *margins, (0, 0)))
        total = 0 if self.bias is None else ops.cast(self.bias, x.dtype)
        for place in np.ndindex(*self.kernel_size):
            rows, columns = (
                slice(start, start + (size - 1) * stride + 1, stride)
                for start, size, stride in zip(place, sizes, self.strides)
            )
            total = total + x[:, rows, columns] * ops.cast(self.kernel[(*place, slice(None), 0)], x.dtype)
        return self.activation(total)

    def _axis(self, axis: int, side: int) -> tuple[int, tuple[int, int]]:
        """Returns the output's size along an axis, and how much the input is padded in front and behind."""
        stride, kernel = self.strides[axis], self.kernel_size[axis]
        if self.padding == "valid":
            return (side - kernel) // stride + 1, (0, 0)
        size = -(-side // stride)
        margin = max((size - 1) * stride + kernel - side, 0)
        return size, (margin // 2, margin - margin // 2)


@keras.saving.register_keras_serializable("zoo")
class PatchEmbedding(keras.layers.Layer):
    """Cuts images into square patches and projects each to a vector; what does not fill a patch is left out.

    Args:
        patch_size: Side of a patch in pixels.
        width: D.

    Call args:
        images: (B, height, width, channels).

    Returns:
        (B, S, D), row by row from the upper left.

    Source: Dosovitskiy et al. 2021, section 3.1.
    """

    def __init__(self, patch_size: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.width = width
        self.projection = keras.layers.Conv2D(
            width,
            patch_size,
            strides=patch_size,
            data_format="channels_last",
            name="projection",
            dtype=self.dtype_policy,
        )

    def build(self, images_shape):
        self.projection.build(images_shape)

    def call(self, images: KerasTensor) -> KerasTensor:
        x = self.projection(images)
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], self.width))

    def compute_output_spec(self, images):
        height, width = (side // self.patch_size for side in images.shape[1:3])
        return KerasTensor((images.shape[0], height * width, self.width), self.compute_dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "patch_size": self.patch_size, "width": self.width}


@keras.saving.register_keras_serializable("zoo")
class ClassToken(keras.layers.Layer):
    """Puts one learned vector before the others.

    Call args:
        x: (B, S, D).

    Returns:
        (B, 1 + S, D).

    Source: Dosovitskiy et al. 2021, section 3.1.
    """

    def build(self, x_shape):
        self.token = self.add_weight(
            shape=(x_shape[-1],), initializer=keras.initializers.RandomNormal(stddev=0.02), name="token"
        )

    def call(self, x: KerasTensor) -> KerasTensor:
        token = ops.broadcast_to(ops.cast(self.token, x.dtype), (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)


@keras.saving.register_keras_serializable("zoo")
class GridPositions(keras.layers.Layer):
    """Adds one learned vector a place of a grid; on another grid the vectors between are interpolated.

    Args:
        learned: Height and width of the grid that there are vectors for.
        grid: Height and width of the grid of x; None is as learned.
        extra: How many vectors of x, such as a class token, are before the grid; each has its own position.

    Call args:
        x: (B, extra + height * width, D).

    Raises:
        ValueError: If x has another length.

    Source: Dosovitskiy et al. 2021, section 3.2; interpolated by Keys 1981 with a = -0.75, as in torch.
    """

    def __init__(self, learned: Grid, grid: Grid | None = None, extra: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.learned = tuple(learned)
        self.grid = tuple(grid or learned)
        self.extra = extra

    def build(self, x_shape):
        self.table = self.add_weight(
            shape=(self.extra + self.learned[0] * self.learned[1], x_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def call(self, x: KerasTensor) -> KerasTensor:
        if x.shape[1] != self.extra + self.grid[0] * self.grid[1]:
            raise ValueError(f"x: {x.shape[1]} vectors; grid {self.grid} and extra {self.extra} give another number")
        return x + ops.cast(self.positions(), x.dtype)

    def positions(self) -> KerasTensor:
        """Returns what is added, (extra + height * width, D)."""
        if self.grid == self.learned:
            return ops.convert_to_tensor(self.table)
        width = self.table.shape[-1]
        known = ops.reshape(self.table[self.extra :], (*self.learned, width))
        rows, columns = (bicubic_weights(old, new) for old, new in zip(self.learned, self.grid))
        between = ops.einsum("ih,jw,hwd->ijd", rows, columns, known)
        return ops.concatenate([self.table[: self.extra], ops.reshape(between, (-1, width))], axis=0)

    def get_config(self) -> dict:
        return {**super().get_config(), "learned": self.learned, "grid": self.grid, "extra": self.extra}


@keras.saving.register_keras_serializable("zoo")
class SinusoidalGrid(keras.layers.Layer):
    """Adds sinusoidal positions in two dimensions: half of the elements tell the row, half the column.

    Args:
        grid: Height and width.
        extra: How many vectors of x are before the grid; they get nothing.

    Call args:
        x: (B, extra + height * width, D).

    Source: Vaswani et al. 2017, section 3.5, for rows and columns apart as in Chen et al. 2021 (MoCo v3), appendix.
    """

    def __init__(self, grid: Grid, extra: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.grid = tuple(grid)
        self.extra = extra

    def call(self, x: KerasTensor) -> KerasTensor:
        positions = ops.pad(sinusoidal_grid(self.grid[0], self.grid[1], x.shape[-1]), ((self.extra, 0), (0, 0)))
        return x + ops.cast(positions, x.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "grid": self.grid, "extra": self.extra}


def sinusoidal_grid(height: int, width: int, dim: int) -> KerasTensor:
    """Encodes the places of a grid: the row in the first half of the elements, the column in the second.

    Args:
        height: Rows.
        width: Columns.
        dim: D, a multiple of 4.

    Returns:
        float32 (height * width, D), row by row.

    Raises:
        ValueError: If D is no multiple of 4.

    Source: see SinusoidalGrid.
    """
    if dim % 4:
        raise ValueError(f"dim: {dim}; rows and columns have sines and cosines each, so it must be a multiple of 4")
    rows, columns = (sinusoidal(ops.arange(size, dtype="int32"), dim // 2) for size in (height, width))
    return ops.concatenate([ops.repeat(rows, width, axis=0), ops.tile(columns, (height, 1))], axis=-1)


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """Returns what each of `old` known points counts at each of `new` points in the same range, float32 (new, old).

    Source: Keys 1981 with a = -0.75; points beyond the ends count as the last, as in torch.
    """
    a = -0.75
    weights = np.zeros((new, old), np.float32)
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        first = int(np.floor(place))
        for neighbour in range(first - 1, first + 3):
            t = abs(place - neighbour)
            weight = (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4)
            weights[i, min(max(neighbour, 0), old - 1)] += weight
    return weights
