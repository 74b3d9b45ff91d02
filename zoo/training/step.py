"""The training step: forward, backward, clip, update, average, as one XLA program on either backend."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Literal

import keras
from keras import KerasTensor, ops

from zoo.layers.recompute import recomputing
from zoo.training.distribution import Distribution, rows_of
from zoo.training.precision import Precision, computing_in
from zoo.training.ranks import RankAllocator

# Maps a batch to the loss and to other numbers worth logging; called with training=True inside the step.
LossFunction = Callable[..., tuple[KerasTensor, dict[str, KerasTensor]]]


class MovingAverage:
    """An exponential moving average of a model's trainable variables.

    Args:
        model: The model that is trained.
        decay: Share of the old average kept at each step. Early on it is (1 + t) / (10 + t), so that the first
            steps do not linger.

    Source: Polyak & Juditsky 1992; the warm-up is TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, model: keras.Model, decay: float):
        self.decay = decay
        self.sources = model.trainable_variables
        self.variables = [
            keras.Variable(ops.copy(source.value), trainable=False, name=f"average/{source.path}".replace("/", ":"))
            for source in self.sources
        ]

    @property
    def copies(self) -> dict[str, keras.Variable]:
        """The averages by the paths of what they follow."""
        return {source.path: average for source, average in zip(self.sources, self.variables, strict=True)}

    def update(self, step: KerasTensor) -> None:
        """Moves the average after optimizer step number `step`."""
        step = ops.cast(step, "float32")
        decay = ops.minimum(self.decay, (1 + step) / (10 + step))
        for average, source in zip(self.variables, self.sources, strict=True):
            average.assign(average + (1 - decay) * (source - average))

    def swap(self) -> None:
        """Exchanges the average and the model's variables; called again, it undoes itself."""
        for average, source in zip(self.variables, self.sources, strict=True):
            held = ops.copy(source.value)
            source.assign(average)
            average.assign(held)


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: LossFunction,
    *,
    clip_norm: float,
    average: MovingAverage | None = None,
    learning_rates: Mapping[str, float] | None = None,
    loss_variables: Sequence[keras.Variable] = (),
    ranks: RankAllocator | None = None,
    jit: bool = True,
    matmul: Literal["float32", "bfloat16"] = "float32",
    precision: Precision = "float32",
    accumulate: int = 1,
    remat: bool = False,
    distribution: Distribution | None = None,
) -> Callable[[dict], dict[str, KerasTensor]]:
    """Compiles one optimizer step.

    Args:
        model: What to train.
        optimizer: Updates the trainable variables.
        loss: Called as loss(model, batch, training=True). Where batches are cut up, one also holds "whole", what it
            was cut from: means are then divided as share() says, and counts are those of the whole batch.
        clip_norm: The longest gradient, over all variables together.
        average: Follows the variables.
        learning_rates: Variable path -> share of the learning rate; 1 where it is not named.
        loss_variables: The loss' own, which are trained beside the model's.
        ranks: Takes ranks away from low-rank additions.
        jit: Whether XLA compiles the step; one program for each shape of a batch.
        matmul, precision, accumulate, remat: See TrainingConfig; matmul "bfloat16" takes the place of jit.
        distribution: The devices and machines that each batch is divided up among; one device where None.

    Returns:
        A function from a batch to scalars: "loss", "learning_rate", "gradient_norm" and whatever `loss` adds. Where
        the loss is scaled "loss_scale" too; a step that was left out, since gradients overflowed, has no gradient_norm.
        On JAX a JaxStep, which also shows the step as a pure function of the variables' values.

    Raises:
        RuntimeError: On another backend than TensorFlow and JAX.
    """
    form = _form()
    distribution = distribution or Distribution()
    variables = [*model.trainable_variables, *loss_variables]
    distribution.place(model, loss_variables)
    optimizer.build(variables)
    distribution.place_followers(optimizer.variables)
    if average is not None:
        distribution.place_followers(average.variables, average.sources)
    if ranks is not None:
        distribution.place_followers(ranks.variables)
    shares = learning_rates or {}
    followers = [variable for follower in (average, ranks) if follower is not None for variable in follower.variables]
    state = [*variables, *model.non_trainable_variables, *optimizer.variables, *followers]

    def differentiate(batch):
        def objective():
            value, metrics = loss(model, batch, training=True)
            value = value + sum(ops.cast(x, "float32") for x in model.losses)  # what weights cost by themselves
            return optimizer.scale_loss(value), {"loss": value, **metrics}

        # Gradients are taken in here too: that is when blocks are computed again.
        with computing_in(precision, model), recomputing(remat):
            return form.gradients(objective, variables, state)

    def learn(batch):
        if accumulate == 1:
            return differentiate(batch)
        count, part = _parts(batch, accumulate)
        total = form.sum_of_parts(lambda i: differentiate(part(i)), count, state)
        return keras.tree.map_structure(lambda x: x / count, total)

    def move(metrics, gradients):
        loss_scale = optimizer.scale_loss(1.0)
        norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients)) / loss_scale
        scale = ops.minimum(1.0, clip_norm / ops.maximum(norm, 1e-12))
        learning_rate = ops.convert_to_tensor(optimizer.learning_rate)
        paced = [(v, ops.copy(v.value), shares[v.path]) for v in variables if shares.get(v.path, 1.0) != 1.0]
        if ranks is not None:
            unscaled = [ops.where(ops.isfinite(norm), gradient / loss_scale, 0.0) for gradient in gradients]
            ranks.observe({v.path: g for v, g in zip(variables, unscaled)}, optimizer.iterations + 1)
        form.update(optimizer, [gradient * scale for gradient in gradients], variables)
        for variable, before, share in paced:
            variable.assign(before + share * (variable - before))
        if average is not None:
            average.update(optimizer.iterations)
        if ranks is not None:
            metrics = {**metrics, **ranks.prune(optimizer.iterations, {} if average is None else average.copies)}
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            metrics = {**metrics, "loss_scale": loss_scale}
            # What is no number without any scale either is a mistake, for the loop to find.
            norm = ops.where(ops.isfinite(norm) | (loss_scale < 1), norm, 0.0)
        return {"learning_rate": learning_rate, "gradient_norm": norm, **metrics}

    return distribution.compiled(learn, move, state, jit, matmul)


def _form() -> ModuleType:
    """Finds what a step is made of on this backend: two modules with the same functions."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise RuntimeError(f"backend {backend!r}: training runs on tensorflow and jax; set KERAS_BACKEND")
    return importlib.import_module(f"zoo.training.step_{backend}")


def _parts(batch: dict, least: int) -> tuple[int, Callable[[KerasTensor], dict]]:
    """Cuts a batch into equal parts, whose means over their rows average to the mean over the batch.

    Args:
        batch: Arrays whose rows are divided up, and numbers that are not.
        least: As few parts as this many, as far as there are rows; more where it does not divide their number.

    Returns:
        The number of parts, and a function from a part's number to it; it holds the whole batch as "whole".
    """
    whole = batch.get("whole")  # where the batch is a replica's rows
    batch = {name: ops.convert_to_tensor(value) for name, value in batch.items() if name != "whole"}
    rows = rows_of(batch)
    count = next(count for count in range(min(least, rows), rows + 1) if rows % count == 0)
    # Every count-th row, so that where rows are spread over devices, so are those of each part.
    cut = {name: ops.reshape(x, (-1, count, *x.shape[1:])) for name, x in batch.items() if len(x.shape)}
    return count, lambda i: {**batch, **{name: x[:, i] for name, x in cut.items()}, "whole": whole or batch}
