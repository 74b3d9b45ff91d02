"""Low-rank additions to projections that are there already."""

import keras
from keras import KerasTensor, ops


class RankedDense(keras.layers.Dense):
    """A Dense layer with a low-rank addition P diag(lambda) Q to its kernel, which loses a rank where a lambda is zero.

    The kernel is kernel + alpha / rank * P diag(lambda) Q. P (in, rank), lambda (rank,) and Q (rank, out) are the
    weights lora_kernel_a, lora_kernel_lambda and lora_kernel_b, so that whatever knows Keras' own LoRA knows this one.
    Nobody makes such a layer: a Dense that is part of a built model becomes one by `add_ranks`.

    Source: Zhang et al. 2023, section 3.1.
    """

    @classmethod
    def add_ranks(cls, dense: keras.layers.Dense, rank: int, alpha: float, orthogonality: float) -> "RankedDense":
        """Turns a Dense layer into one with an addition; its outputs stay as they are until the lambdas learn.

        Args:
            dense: A built layer.
            rank: Of the addition.
            alpha: The addition is scaled by alpha / rank.
            orthogonality: Weight of what P and Q add to the model's losses: see Orthogonal.
        """
        # Keras has no other way to another class for a layer that a model already holds.
        dense.__class__ = cls
        ranked: RankedDense = dense  # type: ignore[assignment]
        # Columns of P and rows of Q begin about as long as they should be.
        short = keras.initializers.RandomNormal(stddev=dense.kernel.shape[0] ** -0.5)
        wide = keras.initializers.RandomNormal(stddev=dense.kernel.shape[1] ** -0.5)
        ranked.enable_lora(rank, lora_alpha=alpha, a_initializer=short, b_initializer=wide)
        ranked.lora_kernel_a.regularizer = ranked.lora_kernel_b.regularizer = Orthogonal(orthogonality)
        return ranked

    def enable_lora(self, rank: int, *args, **kwargs) -> None:
        super().enable_lora(rank, *args, **kwargs)
        self._tracker.unlock()
        self.lora_kernel_lambda = self.add_weight(
            name="lora_kernel_lambda", shape=(rank,), initializer="zeros", dtype="float32"
        )
        self._tracker.lock()

    @property
    def kernel(self) -> KerasTensor:
        if not self.lora_enabled:
            return super().kernel
        addition = ops.matmul(self.lora_kernel_a * self.lora_kernel_lambda, self.lora_kernel_b)
        return ops.cast(self._kernel + self.lora_alpha / self.lora_rank * addition, self.compute_dtype)


@keras.saving.register_keras_serializable("zoo")
class Orthogonal(keras.regularizers.Regularizer):
    """Costs a matrix what it lacks to having orthonormal columns, or rows where it has fewer of them.

    weight * sum of the squares of X^T X - I, or of X X^T - I.

    Args:
        weight: Factor of the cost.

    Source: Zhang et al. 2023, section 3.1.
    """

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, x: KerasTensor) -> KerasTensor:
        x = ops.convert_to_tensor(x)
        if x.shape[0] < x.shape[1]:
            x = ops.transpose(x)
        products = ops.matmul(ops.transpose(x), x)
        return self.weight * ops.sum(ops.square(products - ops.eye(x.shape[1])))

    def get_config(self) -> dict:
        return {"weight": self.weight}
