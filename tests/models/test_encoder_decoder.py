"""encoder_decoder: what must hold for every configuration, and that a saved model is the model."""

import dataclasses
import importlib
from itertools import chain, product

import keras
import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import KVCache, capture
from zoo.checkpoints import by_path, load, save
from zoo.config import ConfigError
from zoo.layers import BlockCache
from zoo.models import MODELS
from zoo.models.encoder_decoder import END, PAD, START, EncoderDecoder, EncoderDecoderConfig, encoder_decoder
from zoo.models.generative import SpecialTokens

SOURCE = [[5, 6, 7, 8, 9, END], [10, 11, END, PAD, PAD, PAD]]
TARGET = [[START, 12, 13, 14, 15], [START, 16, 17, PAD, PAD]]

# Every way to build the model.
KINDS = [
    {"norm_first": norm_first, "activation": activation, "gated": gated, "positions": positions}
    for norm_first, activation, gated, positions in product(
        [True, False], ["relu", "gelu"], [False, True], ["sinusoidal", "learned"]
    )
]
KINDS += [{"copying": True, "norm_first": norm_first} for norm_first in (True, False)]
# As T5 and BART have it.
KINDS += [
    {
        "positions": "relative",
        "num_buckets": 8,
        "max_distance": 12,
        "norm": "rms",
        "use_bias": False,
        "score": "dot",
        "head_dim": 6,
        "gated": True,
        "embedding_scale": False,
        "tied_output": False,
        "output_scale": True,
    },
    {"window": 2, "global_tokens": 1},
    {"window": 3, "positions": "relative", "num_buckets": 8, "max_distance": 12, "copying": True},
    {
        "positions": "learned",
        "first_position": 2,
        "norm_first": False,
        "embedding_scale": False,
        "embedding_norm": True,
        "num_decoder_heads": 4,
        "decoder_feedforward_dim": 20,
        "output_bias": True,
    },
]


def run(model, source, target, **kwargs):
    inputs = {"source": np.array(source, "int32"), "target": np.array(target, "int32")}
    return ops.convert_to_numpy(ops.cast(model(inputs, **kwargs), "float32"))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def model(request, tiny_config, scramble):
    """A model of each kind, which no test may change."""
    return scramble(encoder_decoder(tiny_config(num_encoder_layers=1, **request.param)))


class TestEveryKind:
    def test_no_output_sees_a_later_token(self, model):
        target = [START, 12, 13, START, 14, 15]
        logits = run(model, SOURCE[:1], [target])[0]
        changed = np.tile(target, (6, 1))
        changed[np.arange(6), np.arange(6)] = 30
        others = run(model, SOURCE[:1] * 6, changed)
        for t in range(6):
            np.testing.assert_allclose(others[t, :t], logits[:t], atol=2e-5)
            assert np.abs(others[t, t] - logits[t]).max() > 1e-3

    def test_padding_changes_nothing(self, model):
        logits = run(model, SOURCE, TARGET)
        alone = run(model, [SOURCE[1][:3]], [TARGET[1][:3]])
        np.testing.assert_allclose(logits[1, :3], alone[0], atol=2e-5)
        longer = run(model, np.pad(SOURCE, ((0, 0), (0, 4))), np.pad(TARGET, ((0, 0), (0, 7))))
        np.testing.assert_allclose(longer[0, :5], logits[0], atol=2e-5)
        np.testing.assert_allclose(longer[1, :3], logits[1, :3], atol=2e-5)

    def test_packed_pairs_give_what_they_give_apart(self, model):
        sources = [[5, 6, 7, END], [8, END], [9, 10, 11, END]]
        targets = [[START, 12, 13], [START, 14, 15, 16], [START, 17]]
        packed = run(model, [[*chain(*sources), PAD, PAD, PAD]], [[*chain(*targets), PAD, PAD]])[0]
        apart = run(
            model, [row + [PAD] * (4 - len(row)) for row in sources], [row + [PAD] * (4 - len(row)) for row in targets]
        )
        apart = np.concatenate([logits[: len(target)] for logits, target in zip(apart, targets)])
        np.testing.assert_allclose(packed[: len(apart)], apart, atol=2e-5)

    def test_decoding_with_a_cache_gives_what_decoding_at_once_gives(self, model):
        check_decoding_with_a_cache(model, beams=1)


def check_decoding_with_a_cache(model, beams):
    """Decodes different targets, `beams` neighbouring ones for each source."""
    target = np.random.default_rng(0).integers(4, 40, (2 * beams, 5)).astype("int32")
    target[:, 0] = START
    memory, segments = model.encode(ops.convert_to_tensor(SOURCE, "int32"))
    cache, steps = model.start_cache(memory, 2 * beams, 8), []
    for t in range(5):
        token = ops.convert_to_tensor(target[:, t : t + 1])
        steps.append(ops.convert_to_numpy(model.decode(token, None, segments, cache=cache, position=t)))
    expected = run(model, np.repeat(SOURCE, beams, axis=0), target)
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, atol=2e-5)


def test_beams_share_the_memory_of_their_source(tiny_model):
    check_decoding_with_a_cache(tiny_model, beams=3)


# === Special tokens of others ===


def test_padding_may_look_like_the_start(tiny_config, scramble):
    special = SpecialTokens(pad=0, start=0, end=1)
    model = scramble(encoder_decoder(tiny_config(special_tokens=special)))
    sources, targets = [[5, 6, 7, 1], [8, 1]], [[0, 12, 13], [0, 14, 15, 16]]
    packed = run(model, [[*chain(*sources), 0, 0]], [[*chain(*targets), 0, 0]])[0]
    apart = [run(model, [source], [target])[0] for source, target in zip(sources, targets)]
    np.testing.assert_allclose(packed[:7], np.concatenate(apart), atol=2e-5)


def test_a_source_may_end_with_more_than_one_token(tiny_config, scramble):
    special = SpecialTokens(pad=1, start=30, end=2, source_start=(0,), source_end=(2, 31))
    model = scramble(encoder_decoder(tiny_config(special_tokens=special)))
    sources, targets = [[0, 6, 7, 2, 31], [0, 8, 2, 31]], [[30, 12, 13], [30, 14]]
    packed = run(model, [[*chain(*sources), 1, 1]], [[*chain(*targets), 1]])[0]
    apart = [run(model, [source], [target])[0] for source, target in zip(sources, targets)]
    np.testing.assert_allclose(packed[:5], np.concatenate(apart), atol=2e-5)
    # What stands behind the end is seen, too.
    other = run(model, [[0, 6, 7, 2, 32]], targets[:1])[0]
    assert np.abs(other - apart[0]).max() > 1e-3


@pytest.mark.parametrize(("field", "heads"), [("num_heads", 3), ("num_decoder_heads", 5)])
def test_heads_divide_the_width_where_no_head_width_is_given(tiny_config, field, heads):
    with pytest.raises(ConfigError, match=f"{field}: {heads} does not divide width 16"):
        tiny_config(**{field: heads})
    assert tiny_config(**{field: heads}, head_dim=4).head_dim == 4


# === Copying ===


@pytest.fixture(scope="module")
def copier(tiny_config, scramble):
    """A model that copies, which no test may change."""
    return scramble(encoder_decoder(tiny_config(copying=True)))


def test_beams_share_the_source_that_they_copy_from(copier):
    check_decoding_with_a_cache(copier, beams=3)


def test_copying_gives_log_probabilities(copier):
    np.testing.assert_allclose(np.exp(run(copier, SOURCE, TARGET)).sum(axis=-1)[0], 1, rtol=1e-5)


def test_the_rest_of_the_probability_lies_where_the_last_block_looks(copier):
    """With the gate wide open the same model says what it would write."""
    written = encoder_decoder(copier.config)
    written.set_weights(copier.get_weights())
    by_path(written.weights)["copying/gate/bias"].assign([40.0])
    with capture() as maps:
        mixed = np.exp(run(copier, SOURCE, TARGET))[0]
    attention = ops.convert_to_numpy(maps["decoder/block_1/cross_attention"])[0].mean(axis=0)
    rest = mixed - np.exp(run(written, SOURCE, TARGET))[0]
    for t, row in enumerate(rest):
        copied = np.zeros(40)
        copied[SOURCE[0]] = attention[t]
        absent = np.setdiff1d(np.arange(40), SOURCE[0])
        vocabulary = np.exp(run(written, SOURCE, TARGET))[0][t]
        gate = 1 + row[absent].sum() / vocabulary[absent].sum()
        assert 0 < gate < 1
        np.testing.assert_allclose(mixed[t], gate * vocabulary + (1 - gate) * copied, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_vocabulary_size": 30}, "target_vocabulary_size: 30; with copying, source and target share one"),
        ({"num_decoder_layers": 0}, "num_decoder_layers: 0; with copying it is at least 1"),
    ],
)
def test_copying_needs_one_vocabulary_and_somebody_who_looks(tiny_config, changes, says):
    with pytest.raises(ConfigError, match=says):
        tiny_config(copying=True, **changes)


# === Long sources ===


def test_a_model_with_a_window_has_the_weights_of_one_without(tiny_config, scramble):
    full, local = (scramble(encoder_decoder(tiny_config(window=window))) for window in (None, 6))
    assert list(by_path(full.weights)) == list(by_path(local.weights))
    np.testing.assert_allclose(run(local, SOURCE, TARGET), run(full, SOURCE, TARGET), atol=2e-5)


def test_a_place_beyond_the_window_is_heard_of_through_the_global_token(tiny_config, scramble):
    source = [[5, 6, 7, 8, 9, 10, 11, END]]
    changed = [[5, 6, 7, 8, 9, 10, 12, END]]
    for global_tokens, heard in ((0, False), (1, True)):
        model = scramble(encoder_decoder(tiny_config(window=2, global_tokens=global_tokens)))
        before, behind = (model.encode(ops.convert_to_tensor(ids, "int32"))[0] for ids in (source, changed))
        difference = np.abs(ops.convert_to_numpy(behind - before)).max(axis=(0, 2))
        assert (difference[1] > 1e-4) == heard
        assert difference[5] > 1e-4


class TestChunks:
    @pytest.fixture(scope="class")
    def model(self, tiny_config, scramble):
        return scramble(encoder_decoder(tiny_config(chunk=4, copying=True)))

    def test_padding_changes_nothing(self, model):
        logits = run(model, SOURCE, TARGET)
        np.testing.assert_allclose(run(model, [SOURCE[1][:3]], [TARGET[1][:3]])[0], logits[1, :3], atol=2e-5)
        longer = run(model, np.pad(SOURCE, ((0, 0), (0, 4))), TARGET)
        np.testing.assert_allclose(longer[0], logits[0], atol=2e-5)

    def test_decoding_with_a_cache_gives_what_decoding_at_once_gives(self, model):
        check_decoding_with_a_cache(model, beams=1)

    def test_the_order_is_seen(self, model):
        swapped = [[6, 5, 7, 8, 9, END]]
        assert np.abs(run(model, swapped, TARGET[:1]) - run(model, SOURCE[:1], TARGET[:1])).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window": 0}, "window: 0; it is at least 1, or null for none"),
        ({"global_tokens": 1}, "global_tokens: 1 with window None; it is 0 up to the window"),
        ({"window": 2, "global_tokens": 3}, "global_tokens: 3 with window 2; it is 0 up to the window"),
        ({"chunk": 0}, "chunk, chunk_memory: 0, 1; at least 1 token"),
        ({"chunk": 4, "window": 2}, "chunk: 4, with window 2 and score 'scaled_dot'"),
        ({"chunk": 4, "score": "dot"}, "chunk: 4, with window None and score 'dot'"),
    ],
)
def test_what_does_not_fit_together_is_refused(tiny_config, changes, says):
    with pytest.raises(ConfigError, match=says):
        tiny_config(**changes)


# === Halves ===


def test_every_output_sees_the_whole_source(tiny_model):
    source = SOURCE[0]
    logits = run(tiny_model, [source], TARGET[:1])[0]
    changed = np.tile(source, (5, 1))
    changed[np.arange(5), np.arange(5)] = 30
    difference = np.abs(run(tiny_model, changed, TARGET[:1] * 5) - logits).max(axis=-1)
    assert (difference > 1e-4).all()


def test_the_two_halves_are_the_model(tiny_model):
    source, target = (ops.convert_to_tensor(ids, "int32") for ids in (SOURCE, TARGET))
    logits = tiny_model.decode(target, *tiny_model.encode(source))
    np.testing.assert_array_equal(ops.convert_to_numpy(logits), run(tiny_model, SOURCE, TARGET))


def test_positions_are_seen(tiny_model):
    """Without them a swap of two source tokens would change nothing."""
    swapped = [[6, 5, 7, 8, 9, END]]
    assert np.abs(run(tiny_model, swapped, TARGET[:1]) - run(tiny_model, SOURCE[:1], TARGET[:1])).max() > 1e-3


def test_learned_positions_serve_rows_that_are_longer_than_any_text(tiny_config, scramble):
    """Neither several texts in a row nor the padding behind them may leave the table."""
    model = scramble(encoder_decoder(tiny_config(positions="learned", max_length=4)))
    sources, targets = [[5, 6, 7, END], [8, END]], [[START, 12], [START, 14, 15, 16]]
    packed = run(model, [[*chain(*sources), *[PAD] * 9]], [[*chain(*targets), *[PAD] * 9]])[0]
    assert np.isfinite(packed).all()
    np.testing.assert_allclose(packed[:2], run(model, sources[:1], targets[:1])[0], atol=2e-5)
    np.testing.assert_allclose(packed[2:6], run(model, sources[1:], targets[1:])[0], atol=2e-5)


def test_an_empty_row_gives_finite_numbers_and_disturbs_no_other(tiny_model):
    logits = run(tiny_model, [SOURCE[0], [PAD] * 6], [TARGET[0], [PAD] * 5])
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[0], run(tiny_model, SOURCE, TARGET)[0], atol=2e-5)


def test_the_order_of_rows_is_not_seen(tiny_model):
    logits = run(tiny_model, SOURCE[::-1], TARGET[::-1])
    np.testing.assert_allclose(logits[::-1], run(tiny_model, SOURCE, TARGET), atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "positions", "final_norms"),
    [
        ({}, 0, 2),
        ({"norm_first": False}, 0, 0),
        ({"positions": "learned"}, 2, 2),
        ({"gated": True}, 0, 2),
        ({"target_vocabulary_size": 30}, 0, 2),
        ({"copying": True}, 0, 2),
    ],
)
def test_the_number_of_parameters(tiny_config, changes, positions, final_norms):
    config = tiny_config(num_encoder_layers=3, **changes)
    d, f = config.width, config.feedforward_dim
    attention, norm = 4 * (d * d + d), 2 * d
    feedforward = d * f + f + f * d + d + config.gated * (d * f + f)
    expected = (
        config.vocabulary_size * d
        + (config.target_vocabulary_size or 0) * d
        + positions * config.max_length * d
        + 3 * (attention + feedforward + 2 * norm)
        + 2 * (2 * attention + feedforward + 3 * norm)
        + final_norms * norm
        + config.copying * (d + 2 * d + 1)
    )
    assert encoder_decoder(config).count_params() == expected


def test_the_target_may_have_a_vocabulary_of_its_own(tiny_config, scramble):
    model = scramble(encoder_decoder(tiny_config(target_vocabulary_size=20)))
    assert run(model, [[39, END]], [[START, 19]]).shape == (1, 2, 20)
    table = by_path(model.weights)["target_embedding/embeddings"]
    assert tuple(table.shape) == (20, 16)
    before = run(model, SOURCE, TARGET)
    table.assign(ops.convert_to_numpy(table) * 2)
    assert not np.allclose(run(model, SOURCE, TARGET), before)


def test_dropout_works_while_training_only(tiny_config):
    model = encoder_decoder(tiny_config(dropout=0.3))
    first, second = (run(model, SOURCE, TARGET, training=True) for _ in range(2))
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(run(model, SOURCE, TARGET), run(model, SOURCE, TARGET, training=False))


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "feedforward_dropout"])
def test_each_rate_reaches_the_model(tiny_config, rate):
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "feedforward_dropout": 0.0}
    model = encoder_decoder(tiny_config(**{**rates, rate: 0.5}))
    assert not np.allclose(run(model, SOURCE, TARGET, training=True), run(model, SOURCE, TARGET), atol=1e-3)
    plain = encoder_decoder(tiny_config(**rates))
    np.testing.assert_array_equal(run(plain, SOURCE, TARGET, training=True), run(plain, SOURCE, TARGET))


# === Compiled, captured, in half precision ===


@pytest.mark.parametrize("copying", [False, True])
def test_xla_gives_the_same(tiny_model, copier, copying, jit):
    tiny_model = copier if copying else tiny_model
    compiled = jit(lambda source, target: tiny_model({"source": source, "target": target}))
    logits = compiled(*(ops.convert_to_tensor(ids, "int32") for ids in (SOURCE, TARGET)))
    np.testing.assert_allclose(ops.convert_to_numpy(logits), run(tiny_model, SOURCE, TARGET), atol=2e-5)


def test_a_compiled_step_at_a_traced_place_gives_the_same(tiny_model, jit):
    memory, segments = tiny_model.encode(ops.convert_to_tensor(SOURCE, "int32"))
    cache = tiny_model.start_cache(memory, 2, 5)
    tensors = [tensor for block in cache for tensor in block.self_attention.tensors]

    def step(token, position, tensors):
        blocks = [
            BlockCache(KVCache(key, value, position), block.cross_attention)
            for block, key, value in zip(cache, tensors[::2], tensors[1::2])
        ]
        logits = tiny_model.decode(token, None, segments, cache=blocks, position=position)
        return logits, [tensor for block in blocks for tensor in block.self_attention.tensors]

    step, outputs = jit(step), []
    for t in range(5):
        token = ops.convert_to_tensor(np.array(TARGET, "int32")[:, t : t + 1])
        logits, tensors = step(token, ops.convert_to_tensor(t, "int32"), tensors)
        outputs.append(ops.convert_to_numpy(logits))
    logits, expected = np.concatenate(outputs, axis=1), run(tiny_model, SOURCE, TARGET)
    np.testing.assert_allclose(logits[0], expected[0], atol=2e-5)
    np.testing.assert_allclose(logits[1, :3], expected[1, :3], atol=2e-5)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="JAX traces with concrete shapes")
@pytest.mark.parametrize("copying", [False, True])
def test_a_trace_without_known_batch_and_lengths_gives_the_same(tiny_model, copier, copying):
    import tensorflow as tf

    tiny_model = copier if copying else tiny_model
    specs = [tf.TensorSpec((None, None), tf.int32)] * 2
    traced = tf.function(lambda source, target: tiny_model({"source": source, "target": target}), specs)
    logits = traced(tf.constant(SOURCE), tf.constant(TARGET)).numpy()
    np.testing.assert_allclose(logits, run(tiny_model, SOURCE, TARGET), atol=2e-5)


PATHS = {
    **{f"encoder/block_{i}/self_attention": (2, 2, 6, 6) for i in range(2)},
    **{f"decoder/block_{i}/self_attention": (2, 2, 5, 5) for i in range(2)},
    **{f"decoder/block_{i}/cross_attention": (2, 2, 5, 6) for i in range(2)},
}


def test_every_attention_map_is_captured_and_nothing_else_changes(tiny_model):
    with capture() as maps:
        logits = run(tiny_model, SOURCE, TARGET)
    np.testing.assert_array_equal(logits, run(tiny_model, SOURCE, TARGET))
    assert {name: tuple(weights.shape) for name, weights in maps.items()} == PATHS
    for name, weights in maps.items():
        sums = ops.convert_to_numpy(weights).sum(axis=-1)
        seen = np.array(SOURCE if name.startswith("encoder") else TARGET) != PAD
        np.testing.assert_allclose(sums, np.broadcast_to(seen[:, None], sums.shape), atol=1e-5)


def test_compiled_maps_are_the_eager_ones(tiny_model, jit):
    def look(source, target):
        with capture() as maps:
            logits = tiny_model({"source": source, "target": target})
        return logits, dict(maps)

    with capture() as eager:
        run(tiny_model, SOURCE, TARGET)
    _, compiled = jit(look)(*(ops.convert_to_tensor(ids, "int32") for ids in (SOURCE, TARGET)))
    assert set(compiled) == set(PATHS)
    for name, weights in compiled.items():
        np.testing.assert_allclose(ops.convert_to_numpy(weights), ops.convert_to_numpy(eager[name]), atol=2e-5)


@pytest.fixture
def mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_mixed_precision_stays_close_to_float32(tiny_model, tiny_config, mixed_bfloat16):
    half = encoder_decoder(tiny_config())
    half.set_weights(tiny_model.get_weights())
    assert all(weight.dtype == "float32" for weight in half.weights)
    memory, segments = half.encode(ops.convert_to_tensor(SOURCE, "int32"))
    logits = half.decode(ops.convert_to_tensor(TARGET, "int32"), memory, segments)
    together = half(
        {"source": ops.convert_to_tensor(SOURCE, "int32"), "target": ops.convert_to_tensor(TARGET, "int32")}
    )
    assert [backend.standardize_dtype(x.dtype) for x in (memory, logits, together)] == ["bfloat16"] * 3
    expected = run(tiny_model, SOURCE, TARGET)
    # bfloat16 has 8 significant bits.
    assert np.abs(run(half, SOURCE, TARGET) - expected)[0].max() < 0.05 * np.abs(expected).max()


def test_its_precision_survives_its_configuration(tiny_config, mixed_bfloat16):
    half = encoder_decoder(tiny_config())
    keras.config.set_dtype_policy("float32")
    copy = EncoderDecoder.from_config(half.get_config())
    assert copy.get_layer("encoder").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


# === Learning and saving ===


@pytest.mark.slow
def test_it_learns_by_heart_and_every_weight_takes_part(tiny_config):
    model = encoder_decoder(
        tiny_config(
            dropout=0.0, positions="learned", max_length=8, gated=True, num_encoder_layers=1, num_decoder_layers=1
        )
    )
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 40, (2, 8, 6)).astype("int32")
    source[:, -1], target[:, 0] = END, START
    labels = np.roll(target, -1, axis=1)
    labels[:, -1] = END
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.learning_rate = 0.01
    before = {path: ops.convert_to_numpy(weight) for path, weight in by_path(model.trainable_weights).items()}
    inputs = {"source": source, "target": target}
    first = model.evaluate(inputs, labels, verbose=0)
    repeated = {name: np.tile(ids, (40, 1)) for name, ids in inputs.items()}
    model.fit(repeated, np.tile(labels, (40, 1)), batch_size=8, shuffle=False, verbose=0)
    assert first > 3
    assert model.evaluate(inputs, labels, verbose=0) < 0.5
    still = [path for path, weight in by_path(model.trainable_weights).items() if np.allclose(weight, before[path])]
    # A key's bias adds the same to all the logits of a query, which the softmax does not see.
    assert [path for path in still if not path.endswith("key/bias")] == []


@pytest.mark.parametrize("copying", [False, True])
def test_it_survives_its_configuration(tiny_model, copier, copying):
    tiny_model = copier if copying else tiny_model
    copy = EncoderDecoder.from_config(tiny_model.get_config())
    assert copy.config == tiny_model.config
    assert copy.name == tiny_model.name
    assert [(w.path, w.shape) for w in copy.weights] == [(w.path, w.shape) for w in tiny_model.weights]
    copy.set_weights(tiny_model.get_weights())
    np.testing.assert_array_equal(run(copy, SOURCE, TARGET), run(tiny_model, SOURCE, TARGET))


@pytest.mark.parametrize("copying", [False, True])
def test_it_survives_a_keras_file(tiny_model, copier, copying, tmp_path):
    tiny_model = copier if copying else tiny_model
    tiny_model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is EncoderDecoder
    assert loaded.config == tiny_model.config
    np.testing.assert_array_equal(run(loaded, SOURCE, TARGET), run(tiny_model, SOURCE, TARGET))
    memory, segments = loaded.encode(ops.convert_to_tensor(SOURCE, "int32"))
    logits = loaded.decode(ops.convert_to_tensor(TARGET, "int32"), memory, segments)
    np.testing.assert_array_equal(ops.convert_to_numpy(logits), run(tiny_model, SOURCE, TARGET))


def test_it_survives_a_safetensors_file(tiny_model, tiny_config, tmp_path):
    save(tmp_path / "weights.safetensors", by_path(tiny_model.weights))
    other = encoder_decoder(tiny_config(), name="another_name")
    assert not np.allclose(run(other, SOURCE, TARGET), run(tiny_model, SOURCE, TARGET), atol=0.1)
    load(tmp_path / "weights.safetensors", by_path(other.weights))
    np.testing.assert_array_equal(run(other, SOURCE, TARGET), run(tiny_model, SOURCE, TARGET))


def test_it_nearly_survives_a_float16_file(tiny_model, tiny_config, tmp_path):
    save(tmp_path / "weights.safetensors", by_path(tiny_model.weights), dtype="float16")
    other = encoder_decoder(tiny_config())
    load(tmp_path / "weights.safetensors", by_path(other.weights))
    expected = run(tiny_model, SOURCE, TARGET)
    assert np.abs(run(other, SOURCE, TARGET) - expected)[0].max() < 0.01 * np.abs(expected).max()


# === Configuration ===


def test_the_configuration_survives_json(tiny_config):
    config = tiny_config(target_vocabulary_size=20, positions="learned", norm_first=False)
    assert EncoderDecoderConfig.from_dict(config.to_dict()) == config


def test_every_field_of_a_block_is_passed_on(tiny_config):
    others = {
        **{"head_dim": 3, "activation": "silu", "gated": True, "norm_first": False, "norm": "rms", "epsilon": 1e-3},
        **{"use_bias": False, "score": "dot", "dropout": 0.1, "attention_dropout": 0.2, "feedforward_dropout": 0.3},
    }
    config = tiny_config(**others)
    for stack in ("encoder", "decoder"):
        block = encoder_decoder(config).get_layer(stack).blocks[0].get_config()
        fields = {field.name for field in dataclasses.fields(config) if field.name in block}
        assert fields == {"num_heads", "feedforward_dim", *others}
        assert {name: block[name] for name in fields} == {name: getattr(config, name) for name in fields}


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match="num_heads: 3 does not divide width 16"):
        EncoderDecoderConfig(width=16, num_heads=3)


def test_unknown_positions_are_refused():
    with pytest.raises(ConfigError, match=r"positions: 'sinus'; did you mean 'sinusoidal'\?"):
        EncoderDecoderConfig(positions="sinus")


@pytest.mark.parametrize("name", MODELS)
def test_every_listed_model_is_where_it_is_said_to_be(name):
    module, builder = MODELS[name].split(":")
    assert callable(getattr(importlib.import_module(module), builder))
