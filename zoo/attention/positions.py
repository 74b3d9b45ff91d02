"""Positions: added to the embeddings, turned into queries and keys, or added to the logits.

    embedding side      Sinusoidal, Learned     once, before the first block
    query and key side  Rotary                  MultiHeadAttention(rotary=Rotary())
    bias side           RelativeBias, ALiBi     MultiHeadAttention(bias=ALiBi(num_heads))

Transformer-XL's relative positions look at the queries too: see zoo/attention/recurrence.py.
"""

import math

import keras
from keras import KerasTensor, ops

from zoo.rows import max_in_rows, take_in_rows


def text_starts(segments: KerasTensor) -> KerasTensor:
    """Finds where each place's text begins, in a row that holds several.

    Args:
        segments: Integer segment numbers, (B, T); a text is a run of one number.

    Returns:
        int32 (B, T), the place of the first of each run.
    """
    places = ops.broadcast_to(ops.arange(ops.shape(segments)[1], dtype="int32"), ops.shape(segments))
    before = ops.concatenate([segments[:, :1], segments[:, :-1]], axis=1)
    runs = ops.cumsum(ops.cast(ops.not_equal(segments, before), "int32"), axis=1)
    return least_of_group(places, runs)


def least_of_group(values: KerasTensor, groups: KerasTensor) -> KerasTensor:
    """Finds the least value of each place's group, at a cost that is linear in T.

    Args:
        values: int32 (B, T).
        groups: int32 (B, T), numbers from 0 to T.

    Returns:
        int32 (B, T).
    """
    return take_in_rows(-max_in_rows(-values, groups, ops.shape(values)[1] + 1), groups)


def sinusoidal(positions: KerasTensor, width: int, inclusive: bool = True) -> KerasTensor:
    """Encodes positions as sines (first half) and cosines (second half) of geometric wavelengths.

    Args:
        positions: Integer positions, any shape.
        width: D, even.
        inclusive: Whether 10000 * 2 pi is the longest wavelength, as in tensor2tensor, or one step longer than the
            longest, as in the paper's formula.

    Returns:
        float32 (..., D), wavelengths from 2 pi to 10000 * 2 pi.

    Raises:
        ValueError: If width is odd.

    Source: Vaswani et al. 2017, section 3.5; the halves are side by side, not interleaved, as in tensor2tensor.
    """
    if width % 2:
        raise ValueError(f"width: {width} is odd; sines and cosines share it half and half, so it must be even")
    half = width // 2
    steps = max(half - 1, 1) if inclusive else half
    rates = ops.exp(ops.arange(half, dtype="float32") * (-math.log(10000.0) / steps))
    angles = ops.cast(positions, "float32")[..., None] * rates
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


@keras.saving.register_keras_serializable("zoo")
class Sinusoidal(keras.layers.Layer):
    """Adds sinusoidal positions to embeddings; any length, nothing to learn.

    Args:
        inclusive: As in sinusoidal().

    Call args:
        x: (B, T, D).
        positions: Integer (B, T) or (T,); 0 ... T-1 where None.

    Source: Vaswani et al. 2017, section 3.5.
    """

    def __init__(self, inclusive: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.inclusive = inclusive

    def call(self, x: KerasTensor, positions: KerasTensor | None = None) -> KerasTensor:
        if positions is None:
            positions = ops.arange(ops.shape(x)[1], dtype="int32")
        return x + ops.cast(sinusoidal(positions, x.shape[-1], self.inclusive), x.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "inclusive": self.inclusive}


@keras.saving.register_keras_serializable("zoo")
class Learned(keras.layers.Layer):
    """Adds one learned vector a position to embeddings.

    Args:
        max_length: How many positions there are.

    Call args:
        x: (B, T, D).
        positions: Integer (B, T) or (T,), below max_length; 0 ... T-1 where None.

    Raises:
        ValueError: If positions are not given, and T is known to exceed max_length.

    Source: Gehring et al. 2017, section 3.1.
    """

    def __init__(self, max_length: int, **kwargs):
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, x_shape, positions_shape=None):
        self.table = self.add_weight(
            shape=(self.max_length, x_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def call(self, x: KerasTensor, positions: KerasTensor | None = None) -> KerasTensor:
        if positions is None:
            length = ops.shape(x)[1]
            # A traced length is no int. With positions given, T may be longer: several texts packed into a row.
            if isinstance(length, int) and length > self.max_length:
                raise ValueError(f"x: {length} positions; this layer learned {self.max_length} (max_length)")
            positions = ops.arange(length, dtype="int32")
        return x + ops.cast(ops.take(self.table, positions, axis=0), x.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "max_length": self.max_length}


# === Query and key side ===


def rotate(x: KerasTensor, positions: KerasTensor, base: float = 10000.0, scaling: float = 1.0) -> KerasTensor:
    """Turns pairs of elements by angles that grow with the position, so that dot products see distances only.

    Args:
        x: Queries or keys, (B, T, N, H); H is even, element i pairs with element i + H / 2.
        positions: Integer (T,) or (B, T).
        base: The slowest pair turns once in about 2 pi * base positions.
        scaling: Divides the positions: a model of 2,048 positions reads 8,192 with scaling 4.

    Returns:
        (B, T, N, H), in x's dtype.

    Raises:
        ValueError: If H is odd.

    Source: Su et al. 2021, section 3.2, paired by halves as in Llama; scaling: Chen et al. 2023, section 2.3.
    """
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"x: head width {width} is odd; rotary positions turn pairs, so it must be even")
    rates = ops.exp(ops.arange(0, width, 2, dtype="float32") * (-math.log(base) / width))
    angles = ops.cast(positions, "float32")[..., None] * (rates / scaling)
    cos, sin = (ops.cast(f(angles), x.dtype)[..., None, :] for f in (ops.cos, ops.sin))
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


@keras.saving.register_keras_serializable("zoo")
class Rotary(keras.layers.Layer):
    """Rotary positions; nothing to learn.

    Args:
        base, scaling: As in rotate().

    Call args:
        x: Queries or keys, (B, T, N, H).
        positions: Integer (T,) or (B, T).

    Raises:
        ValueError: If base or scaling is not positive.

    Source: Su et al. 2021.
    """

    def __init__(self, base: float = 10000.0, scaling: float = 1.0, **kwargs):
        super().__init__(autocast=False, **kwargs)  # x keeps its type
        if base <= 0 or scaling <= 0:
            raise ValueError(f"base, scaling: {base}, {scaling}; both are positive")
        self.base = base
        self.scaling = scaling
        self.built = True

    def call(self, x: KerasTensor, positions: KerasTensor) -> KerasTensor:
        return rotate(x, positions, self.base, self.scaling)

    def compute_output_shape(self, x_shape, positions_shape):
        return x_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "base": self.base, "scaling": self.scaling}


# === Bias side ===


def distances(query_positions: KerasTensor, key_positions: KerasTensor) -> KerasTensor:
    """Counts how far each key lies behind (positive) or before each query.

    Args:
        query_positions: Integer (T,) or (B, T).
        key_positions: Integer (S,) or (B, S).

    Returns:
        int32 (T, S) or (B, T, S).
    """
    return ops.cast(key_positions, "int32")[..., None, :] - ops.cast(query_positions, "int32")[..., :, None]


def relative_buckets(
    distance: KerasTensor, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> KerasTensor:
    """Sorts distances into buckets: near ones have one each, far ones share them on a logarithmic scale.

    Args:
        distance: Of keys from queries, integer, any shape.
        num_buckets: How many buckets; half of them for keys behind the query if bidirectional.
        max_distance: From here on all distances share the last bucket.
        bidirectional: Whether keys behind a query have buckets of their own; else they share that of distance 0.

    Returns:
        int32 bucket numbers, distance's shape.

    Raises:
        ValueError: If num_buckets leaves no bucket for a near distance, or max_distance is a near one.

    Source: Raffel et al. 2020, section 2.1; the rounding is that of its published code.
    """
    first, distance = 0, ops.cast(distance, "int32")
    if bidirectional:
        num_buckets //= 2
        first = ops.where(distance > 0, num_buckets, 0)
        distance = ops.abs(distance)
    else:
        distance = ops.maximum(-distance, 0)
    exact = num_buckets // 2
    if not 0 < exact < max_distance:
        raise ValueError(
            f"num_buckets, max_distance: {exact} near distances would have a bucket each; "
            f"it takes 1 to {max_distance - 1} of them"
        )
    share = ops.log(ops.cast(ops.maximum(distance, exact), "float32") / exact) / math.log(max_distance / exact)
    far = exact + ops.cast(share * (num_buckets - exact), "int32")
    return first + ops.where(distance < exact, distance, ops.minimum(far, num_buckets - 1))


@keras.saving.register_keras_serializable("zoo")
class RelativeBias(keras.layers.Layer):
    """T5's relative positions: one learned number for each head and bucket of distances.

    Args:
        num_heads: N.
        num_buckets, max_distance, bidirectional: As in relative_buckets().

    Call args:
        query_positions: Integer (T,) or (B, T).
        key_positions: Integer (S,) or (B, S).

    Returns:
        Bias (1, N, T, S) or (B, N, T, S).

    Source: Raffel et al. 2020, section 2.1.
    """

    def __init__(
        self, num_heads: int, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional

    def build(self, query_positions_shape=None, key_positions_shape=None):
        self.table = self.add_weight(
            shape=(self.num_buckets, self.num_heads),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def call(self, query_positions: KerasTensor, key_positions: KerasTensor) -> KerasTensor:
        distance = distances(query_positions, key_positions)
        buckets = relative_buckets(distance, self.num_buckets, self.max_distance, self.bidirectional)
        bias = ops.moveaxis(ops.take(self.table, buckets, axis=0), -1, -3)
        return bias if len(bias.shape) == 4 else bias[None]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
        }


def alibi_slopes(num_heads: int) -> list[float]:
    """Gives each head its slope: a geometric sequence from 2^(-8/N) to 2^-8 where N is a power of 2.

    Other N take the sequence of the next lower power, then every second number of the next higher one's.

    Source: Press et al. 2022, section 3, and its published code.
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (num_heads - power), 2)]
    return slopes + between


@keras.saving.register_keras_serializable("zoo")
class ALiBi(keras.layers.Layer):
    """Attention with linear biases: each head fades with the distance at a rate of its own; nothing to learn.

    Args:
        num_heads: N.

    Call args:
        query_positions: Integer (T,) or (B, T).
        key_positions: Integer (S,) or (B, S).

    Returns:
        Bias (1, N, T, S) or (B, N, T, S), the same before and behind a query.

    Source: Press et al. 2022, section 3.
    """

    def __init__(self, num_heads: int, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.built = True

    def call(self, query_positions: KerasTensor, key_positions: KerasTensor) -> KerasTensor:
        distance = ops.cast(ops.abs(distances(query_positions, key_positions)), "float32")
        slopes = ops.convert_to_tensor(alibi_slopes(self.num_heads), "float32")
        bias = -slopes[:, None, None] * distance[..., None, :, :]
        return bias if len(bias.shape) == 4 else bias[None]

    def get_config(self) -> dict:
        return {**super().get_config(), "num_heads": self.num_heads}
