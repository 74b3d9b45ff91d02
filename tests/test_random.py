"""random_bits: the same words everywhere, and no pattern that dropout could show."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.random import next_seed, own_sequence, random_bits, seeds_from, word


def draw(seed, size):
    return ops.convert_to_numpy(random_bits(np.array(seed, "uint32"), size))


def mix(x, key=0):
    """The finaliser in Python's integers, which never overflow."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
    x = x ^ key
    x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


@pytest.mark.parametrize("seed", [(0, 0), (1, 0), (0, 1), (2**32 - 1, 12345)])
def test_the_words_are_those_of_the_published_constants(seed):
    first = mix(seed[0] ^ mix(seed[1]))
    second = mix(first ^ 0x9E3779B9)
    assert draw(seed, 50).tolist() == [mix(i ^ first, second) for i in range(50)]


def test_each_seed_of_a_batch_has_its_own_words():
    seeds = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    words = draw(seeds, 10)
    assert words.shape == (2, 2, 10)
    assert words.dtype == np.uint32
    for i in range(2):
        for j in range(2):
            assert words[i, j].tolist() == draw(seeds[i][j], 10).tolist()


def test_a_longer_draw_begins_like_a_shorter_one():
    assert draw((3, 9), 1000)[:10].tolist() == draw((3, 9), 10).tolist()


def test_xla_draws_the_same_words(jit):
    seed = np.array([42, 7], "uint32")
    compiled = jit(lambda seed: random_bits(seed, 500))(ops.convert_to_tensor(seed))
    assert ops.convert_to_numpy(compiled).tolist() == draw(seed, 500).tolist()


def test_a_word_is_unsigned():
    largest = word(2**32 - 1)
    assert keras.backend.standardize_dtype(largest.dtype) == "uint32"
    assert int(largest) == 2**32 - 1


SIZE = 1 << 16
BITS = np.arange(32, dtype=np.uint32)


@pytest.fixture(scope="module")
def streams():
    """Four layers (first key) at four successive steps (second key)."""
    return {(layer, step): draw((layer, step), SIZE) for layer in range(40, 44) for step in range(4)}


def test_every_bit_is_set_half_the_time(streams):
    for words in streams.values():
        share = (words[:, None] >> BITS & 1).mean(axis=0)
        assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(SIZE)


def test_bits_of_one_word_are_independent(streams):
    for words in streams.values():
        signs = (words[:, None] >> BITS & 1) * 2.0 - 1
        correlations = signs.T @ signs / SIZE - np.eye(32)
        assert np.abs(correlations).max() < 5 / np.sqrt(SIZE)


def test_words_are_spread_evenly(streams):
    # Chi-square over 256 bins has mean 255 and standard deviation sqrt(510), for the highest and the lowest byte.
    for words in streams.values():
        for byte in (words >> 24, words & 255):
            counts = np.bincount(byte, minlength=256)
            chi_square = ((counts - SIZE / 256) ** 2 / (SIZE / 256)).sum()
            assert abs(chi_square - 255) < 5 * np.sqrt(510)


def correlation(x, y):
    return np.corrcoef(x.astype("float64"), y.astype("float64"))[0, 1]


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 8, 16, 64, 100, 128, 512, 1000, 4096])
def test_neighbours_are_independent(streams, lag):
    for words in streams.values():
        assert abs(correlation(words[lag:], words[:-lag])) < 5 / np.sqrt(SIZE - lag)


def test_layers_and_steps_are_independent(streams):
    words = list(streams.values())
    for i, x in enumerate(words):
        for y in words[:i]:
            assert abs(correlation(x, y)) < 5 / np.sqrt(SIZE)


def test_no_step_rearranges_the_words_of_another():
    """Of 1,024 words no two of a layer's 8,192 steps share more than a few."""
    steps = np.stack([np.full(8192, 42), np.arange(8192)], axis=1)
    words = draw(steps, 1024)
    order = np.argsort(words, axis=None)
    words, step = words.ravel()[order], order // 1024
    twice = np.flatnonzero(words[1:] == words[:-1])
    pairs = np.stack([step[twice], step[twice + 1]], axis=1)
    shared = np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)[1]
    # By chance 2^23 of 2^32 words meet 2^13 times.
    assert abs(len(twice) - 2**13) < 2**12
    assert shared.max() < 100


@pytest.mark.parametrize("key", [0, 1])
def test_flipping_one_bit_of_a_key_flips_half_of_the_words_bits(key):
    seed = np.array([1234, 56], "uint32")
    base = draw(seed, 2048)
    for bit in range(32):
        flipped = seed.copy()
        flipped[key] ^= np.uint32(1 << bit)
        changed = np.bitwise_count(base ^ draw(flipped, 2048)).mean() / 32
        assert abs(changed - 0.5) < 5 * 0.5 / np.sqrt(2048 * 32)


def test_what_runs_twice_draws_the_same_seeds_twice():
    generator = keras.random.SeedGenerator(3)
    seed = generator.next()

    def three():
        with seeds_from(seed):
            return [tuple(np.array(next_seed(generator)).tolist()) for _ in range(3)]

    found = three()
    assert len(set(found)) == 3
    assert found == three()
    following = [tuple(np.array(next_seed(generator)).tolist()) for _ in range(10)]
    assert not set(found[1:]) & set(following)
    assert len(set(following)) == 10


def test_each_replica_draws_seeds_of_its_own_and_the_first_one_those_of_a_single_device():
    def drawn(number):
        generator = keras.random.SeedGenerator(7)
        if number is None:
            return [tuple(ops.convert_to_numpy(next_seed(generator)).tolist()) for _ in range(3)]
        with own_sequence(np.array(number)):
            return [tuple(ops.convert_to_numpy(next_seed(generator)).tolist()) for _ in range(3)]

    replicas = [drawn(number) for number in range(4)]
    assert replicas[0] == drawn(None)
    assert len({seed for seeds in replicas for seed in seeds}) == 12
