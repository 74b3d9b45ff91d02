"""The compiled step against NumPy, against itself without XLA, and against what it promises to be: one program."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder
from zoo.training import MovingAverage, OptimizerConfig, cross_entropy, make_optimizer, make_train_step, token_mean

ON_JAX = keras.backend.backend() == "jax"


def tiny_model(dropout=0.0):
    keras.utils.set_random_seed(0)
    return encoder_decoder(
        EncoderDecoderConfig(
            vocabulary_size=16,
            width=8,
            num_heads=2,
            feedforward_dim=12,
            num_encoder_layers=1,
            num_decoder_layers=1,
            dropout=dropout,
            attention_dropout=dropout,
            feedforward_dropout=dropout,
        )
    )


def loss(model, batch, training):
    logits = model({"source": batch["source"], "target": batch["target"]}, training=training)
    value, tokens = token_mean(cross_entropy(logits, batch["labels"], 0.1), batch["labels"])
    return value, {"tokens": tokens}


def random_batch(rows, length, seed=0):
    """Rows with one pair each, of `length` places."""
    ids = np.random.default_rng(seed).integers(4, 16, (3, rows, length)).astype(np.int32)
    ids[0, :, -1] = 2
    ids[1, :, 0] = 1
    return dict(zip(("source", "target", "labels"), ids))


def values(model):
    return [np.array(variable) for variable in model.trainable_variables]


# === One program ===


@pytest.fixture(scope="module")
def compiled():
    """A model, and a compiled step with everything: dropout, clipping, AdamW and a moving average."""
    model = tiny_model(dropout=0.2)
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=2), steps=10)
    step = make_train_step(model, optimizer, loss, clip_norm=1.0, average=MovingAverage(model, 0.9))
    return model, step


@pytest.mark.slow
def test_a_step_is_one_program_that_never_calls_the_host(compiled):
    _, step = compiled
    if ON_JAX:
        text = step.program.lower(step.abstract_state, random_batch(4, 6)).compile().as_text()
    else:
        text = step.experimental_get_compiler_ir(random_batch(4, 6))(stage="optimized_hlo")
    assert text.count("\nENTRY ") == 1
    for instruction in ("infeed", "outfeed", "send", "recv", "send-done", "recv-done"):
        assert not re.search(rf"= \S+ {instruction}\(", text), instruction
    targets = set(re.findall(r'custom_call_target="([^"]+)"', text))
    # What XLA's own libraries compute on the CPU is no call of the host's Python.
    assert not {target for target in targets if not target.startswith(("__onednn$", "TopK"))}


@pytest.mark.slow
def test_nothing_is_compiled_again_once_the_buckets_are_warm(compiled, programs):
    model, step = compiled
    for length in (6, 9):
        step(random_batch(4, length))
    count = programs(step)
    before = values(model)
    for seed in range(3):
        for length in (9, 6):
            step(random_batch(4, length, seed))
    assert programs(step) == count
    assert not any(np.array_equal(old, new) for old, new in zip(before, values(model)))


@pytest.mark.slow
def test_xla_computes_what_the_eager_step_computes():
    found = {}
    for way in ("xla", "eager"):
        model = tiny_model()
        average = MovingAverage(model, 0.9)
        # Keys' biases change no attention: their gradients are rounding, which a small epsilon would blow up.
        optimizer = make_optimizer(OptimizerConfig(learning_rate=0.01, warmup_steps=2, epsilon=1e-3), steps=10)
        step = make_train_step(model, optimizer, loss, clip_norm=0.5, average=average, jit=way == "xla")
        if way == "eager" and not ON_JAX:
            step = step.python_function
        metrics = [{k: float(v) for k, v in step(random_batch(4, 6, seed)).items()} for seed in range(2)]
        found[way] = (metrics, values(model), [np.array(variable) for variable in average.variables])
    for mine, theirs in zip(found["xla"][0], found["eager"][0]):
        assert mine.keys() == {"loss", "learning_rate", "gradient_norm", "tokens"}
        assert mine == pytest.approx(theirs, rel=1e-4)
    for kind in (1, 2):
        for mine, theirs in zip(found["xla"][kind], found["eager"][kind], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-5)


# === Arithmetic ===


def small_model():
    """A matrix, a bias and a normalization, enough for an optimizer."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, bias_initializer="normal", name="dense")(inputs)
    return keras.Model(inputs, keras.layers.LayerNormalization(name="norm")(x))


def squares(model, batch, training):
    return ops.mean(ops.square(model(batch["x"], training=training) - batch["y"])), {}


@pytest.fixture(scope="module")
def gradients_of(derivatives):
    return lambda model, batch: derivatives(lambda: squares(model, batch, True)[0], model.trainable_variables)[1:]


def small_batch(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(5, 4)).astype("float32"), "y": (scale * rng.normal(size=(5, 3))).astype("float32")}


def norm(arrays):
    return np.sqrt(sum(np.square(array).sum() for array in arrays))


@pytest.mark.parametrize(("scale", "clipped"), [(50.0, True), (0.5, False)])
def test_the_applied_gradient_is_no_longer_than_clip_norm(scale, clipped, gradients_of):
    model = small_model()
    step = make_train_step(model, keras.optimizers.SGD(1.0), squares, clip_norm=2.0, jit=False)
    batch = small_batch(0, scale)
    gradients, before = gradients_of(model, batch), values(model)
    metrics = step(batch)
    applied = [old - new for old, new in zip(before, values(model))]
    # What is reported is the length before clipping; the direction stays.
    assert float(metrics["gradient_norm"]) == pytest.approx(norm(gradients), rel=1e-4)
    assert (norm(gradients) > 2.0) == clipped
    assert norm(applied) == pytest.approx(2.0 if clipped else norm(gradients), rel=1e-4)
    for mine, gradient in zip(applied, gradients):
        np.testing.assert_allclose(mine / norm(applied), gradient / norm(gradients), atol=1e-4)


def test_adamw_is_the_one_of_the_paper(gradients_of):
    config = OptimizerConfig(
        learning_rate=0.1, warmup_steps=3, weight_decay=0.3, beta_1=0.8, beta_2=0.95, epsilon=1e-6, clip_norm=0.7
    )
    model = small_model()
    step = make_train_step(model, make_optimizer(config, 10), squares, clip_norm=config.clip_norm, jit=False)
    weights = values(model)
    decays = [variable.path == "dense/kernel" for variable in model.trainable_variables]
    assert sum(decays) == 1
    first, second = [[np.zeros_like(w) for w in weights] for _ in range(2)]
    for t in range(1, 5):
        batch = small_batch(t, scale=3.0)
        gradients = gradients_of(model, batch)
        gradients = [g * min(1, 0.7 / norm(gradients)) for g in gradients]
        rate = 0.1 * min(t / 3, np.sqrt(3 / t))
        for i, gradient in enumerate(gradients):
            first[i] = 0.8 * first[i] + 0.2 * gradient
            second[i] = 0.95 * second[i] + 0.05 * gradient**2
            direction = (first[i] / (1 - 0.8**t)) / (np.sqrt(second[i] / (1 - 0.95**t)) + 1e-6)
            weights[i] = weights[i] * (1 - rate * 0.3 * decays[i]) - rate * direction
        metrics = step(batch)
        assert float(metrics["learning_rate"]) == pytest.approx(rate)
        for mine, expected in zip(values(model), weights):
            np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5)


def test_matrices_decay_and_vectors_do_not():
    # Without a gradient, decay is all that AdamW does.
    model = tiny_model()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, warmup_steps=1, weight_decay=0.2), steps=10)

    def nothing(model, batch, training):
        return 0.0 * sum(ops.sum(variable.value) for variable in model.trainable_variables), {}

    for variable in model.trainable_variables:
        variable.assign(ops.ones(variable.shape))
    make_train_step(model, optimizer, nothing, clip_norm=1.0, jit=False)({})
    for variable in model.trainable_variables:
        expected = 1 - 0.5 * 0.2 if len(variable.shape) == 2 else 1
        np.testing.assert_allclose(variable, expected, rtol=1e-6, err_msg=variable.path)


# === The moving average ===


def test_the_average_follows_as_in_numpy():
    model = small_model()
    average = MovingAverage(model, 0.6)
    rng = np.random.default_rng(0)
    expected = values(model)
    for step in range(1, 20):
        for variable in model.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        average.update(ops.convert_to_tensor(step))
        decay = min(0.6, (1 + step) / (10 + step))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, values(model))]
        for mine, theirs in zip(average.variables, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_step_updates_the_average_behind_the_weights():
    model = small_model()
    average = MovingAverage(model, 0.999)
    before = values(model)
    make_train_step(model, keras.optimizers.SGD(0.1), squares, clip_norm=9.0, average=average, jit=False)(
        small_batch(0)
    )
    for mine, old, new in zip(average.variables, before, values(model), strict=True):
        np.testing.assert_allclose(mine, 2 / 11 * old + 9 / 11 * new, rtol=1e-4, atol=1e-6)


def test_swapping_twice_changes_nothing():
    model = small_model()
    average = MovingAverage(model, 0.9)
    for variable in average.variables:
        variable.assign(variable + 1)
    trained, averaged = values(model), [np.array(variable) for variable in average.variables]
    average.swap()
    for mine, theirs in zip([*values(model), *average.variables], [*averaged, *trained], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    average.swap()
    for mine, theirs in zip([*values(model), *average.variables], [*trained, *averaged], strict=True):
        np.testing.assert_array_equal(mine, theirs)
