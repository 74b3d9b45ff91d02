"""KVCache: keys and values of earlier tokens, so that a decoder reads each token once."""

from keras import KerasTensor, ops


class KVCache:
    """Keys and values of one attention layer while a program decodes token by token.

    The object lives while a step is traced and updates itself there; `tensors` and `length` are what a compiled
    loop carries from one step to the next. A frozen cache holds a memory that never grows: the projected encoder
    output of a cross-attention.

    Args:
        key: (B, S, K, H), S places.
        value: (B, S, K, Hv).
        length: How many places are filled, a number or a scalar tensor; None for a frozen cache.
    """

    def __init__(self, key: KerasTensor, value: KerasTensor, length: int | KerasTensor | None = None):
        self.key = key
        self.value = value
        self.length = length

    @classmethod
    def empty(
        cls, batch: int, max_length: int, num_kv_heads: int, head_dim: int, value_dim: int, dtype: str
    ) -> "KVCache":
        """Makes a cache of `max_length` free places."""
        return cls(
            ops.zeros((batch, max_length, num_kv_heads, head_dim), dtype),
            ops.zeros((batch, max_length, num_kv_heads, value_dim), dtype),
            0,
        )

    @property
    def frozen(self) -> bool:
        return self.length is None

    @property
    def max_length(self) -> int:
        return self.key.shape[1]

    @property
    def tensors(self) -> tuple[KerasTensor, KerasTensor]:
        return self.key, self.value

    def update(self, key: KerasTensor, value: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Writes new keys and values behind the filled places.

        Args:
            key: (B, T, K, H).
            value: (B, T, K, Hv).

        Returns:
            All keys (B, S, K, H) and values (B, S, K, Hv), free places included: the caller masks them.

        Raises:
            ValueError: If the new places are known not to fit, or the cache is frozen.
        """
        if self.frozen:
            raise ValueError("cache: a frozen cache takes no new keys")
        new = key.shape[1]
        if isinstance(self.length, int) and self.length + new > self.max_length:
            raise ValueError(f"cache: {self.length} + {new} places do not fit into max_length {self.max_length}")
        start = (0, self.length, 0, 0)
        self.key = ops.slice_update(self.key, start, ops.cast(key, self.key.dtype))
        self.value = ops.slice_update(self.value, start, ops.cast(value, self.value.dtype))
        self.length = self.length + new
        return self.tensors

    def reorder(self, rows: KerasTensor) -> None:
        """Makes row i continue what row `rows[i]` held: the step after a beam search chose its survivors.

        Args:
            rows: Integer (B,).
        """
        self.key = ops.take(self.key, rows, axis=0)
        self.value = ops.take(self.value, rows, axis=0)
