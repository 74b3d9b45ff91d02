"""From source tokens to hypotheses: fixed shapes in, one XLA program a shape, order kept."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from keras import KerasTensor, ops

from zoo.attention import KVCache
from zoo.config import Config, ConfigError
from zoo.generation import beam, sampling
from zoo.generation.compile import compiled
from zoo.layers import BlockCache
from zoo.models.encoder_decoder import EncoderDecoder

PAD, START, END, UNKNOWN = 0, 1, 2, 3

# Programs are compiled for these many sources at a time; a smaller batch is filled up with empty sources.
BATCH_SIZES = (1, 8, 32)
# The shortest source bucket; longer ones double.
SHORTEST = 16


@dataclasses.dataclass(frozen=True)
class GenerationConfig(Config):
    """How a target is found.

    Args:
        beams: Width of the beam search; 1 is greedy.
        length_penalty: Exponent of the beam search's length penalty; 0 compares plain log-probabilities.
        max_length: Most target tokens, end token included; where None, twice the source and 10 more.
        min_length: Fewest target tokens before the end token.
        no_repeat_ngram: No n-gram of this length occurs twice in a target; 0 allows all.
        n_best: How many hypotheses are returned for a source; at most `beams`, or any number of samples.
        sample: Draws tokens instead of searching; with `temperature`, `top_k` (0: all) and `top_p`.
        temperature: Divides the logits when sampling.
        top_k: Draws among this many likeliest tokens.
        top_p: Draws among the likeliest tokens that together have this probability.
        seed: Of the draws.
    """

    beams: int = 4
    length_penalty: float = 1.0
    max_length: int | None = None
    min_length: int = 0
    no_repeat_ngram: int = 0
    n_best: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.beams < 1 or self.n_best < 1:
            raise ConfigError(f"beams, n_best: {self.beams}, {self.n_best}; both are at least 1")
        if not self.sample and self.n_best > self.beams:
            raise ConfigError(f"n_best: {self.n_best} hypotheses of {self.beams} beams; it is at most `beams`")
        if self.sample and self.beams > 1:
            raise ConfigError(f"beams: {self.beams} with sample=true; sampling takes beams=1")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ConfigError(f"temperature, top_p: {self.temperature}, {self.top_p}; above 0, and top_p at most 1")
        for name in ("min_length", "no_repeat_ngram", "top_k", "seed"):
            if not 0 <= getattr(self, name) < 2**31:
                raise ConfigError(f"{name}: {getattr(self, name)}; it lies from 0 up to, not including, 2**31")
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"max_length: {self.max_length}; it is at least 1, for the end token")


class Hypothesis(NamedTuple):
    """One generated target: its tokens without start and end, and its score (log-probability, length-penalized)."""

    tokens: list[int]
    score: float


class Generator:
    """Generates targets for any number of sources of any length.

    Sources are sorted by length into batches of a few fixed shapes, so that a program is compiled once for each
    shape and kept. Neither order nor batching shows in the result.

    Args:
        model: An encoder-decoder.
        jit: Whether XLA compiles the programs.
    """

    def __init__(self, model: EncoderDecoder, jit: bool = True):
        self.model = model
        self.jit = jit
        self._programs: dict[tuple, Callable] = {}

    def __call__(
        self, sources: Sequence[Sequence[int]], config: GenerationConfig = GenerationConfig()
    ) -> list[list[Hypothesis]]:
        """Generates `config.n_best` hypotheses for each source, best first.

        Args:
            sources: Token ids without special tokens.
            config: How.

        Returns:
            For each source, in the order given, its hypotheses.

        Raises:
            ValueError: If a source is longer than the model allows.
        """
        longest = self.model.config.max_length
        for i, source in enumerate(sources):
            if len(source) + 1 > longest:
                raise ValueError(f"input {i + 1}: {len(source)} tokens; the model takes at most {longest - 1}")
        results: list[list[Hypothesis]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        copies = config.n_best if config.sample else 1
        work = [(i, copy) for i in order for copy in range(copies)]
        while work:
            size = next((size for size in BATCH_SIZES if size >= len(work)), BATCH_SIZES[-1])
            batch, work = work[:size], work[size:]
            for (i, _), hypotheses in zip(batch, self._run(sources, batch, size, config)):
                results[i] += hypotheses
        return results

    def _run(self, sources, batch: list[tuple[int, int]], size: int, config: GenerationConfig) -> list:
        """Runs one program on one batch of (source number, sample number)."""
        longest = max(len(sources[i]) + 1 for i, _ in batch)
        bucket = SHORTEST
        while bucket < longest:
            bucket *= 2
        bucket = min(bucket, self.model.config.max_length)
        ids = np.full((size, bucket), PAD, np.int32)
        ids[:, 0] = END
        limits = np.full((size,), 1, np.int32)
        seeds = np.zeros((size, 2), np.int32)
        for row, (i, copy) in enumerate(batch):
            source = sources[i]
            ids[row, : len(source) + 1] = [*source, END]
            limits[row] = self._limit(len(source), config)
            seeds[row] = (config.seed, i * config.n_best + copy)
        places = self._limit(bucket - 1, config) + 1
        tokens, scores = self._program(config, places)(ids, limits, seeds)
        tokens, scores = ops.convert_to_numpy(tokens), ops.convert_to_numpy(scores)
        return [
            [Hypothesis(_strip(tokens[r, k]), float(scores[r, k])) for k in range(tokens.shape[1])]
            for r in range(len(batch))
        ]

    def _limit(self, source_length: int, config: GenerationConfig) -> int:
        limit = 2 * source_length + 10 if config.max_length is None else config.max_length
        return min(max(limit, config.min_length + 1), self.model.config.max_length)

    def _program(self, config: GenerationConfig, places: int) -> Callable:
        """Returns the program for targets of up to `places` places, compiled at its first call for a shape."""
        key = (dataclasses.replace(config, seed=0), places)
        if key not in self._programs:

            def program(source, limits, seeds):
                if config.beams > 1:
                    return _search(self.model, source, limits, places, config)
                return _sample(self.model, source, limits, seeds, places, config)

            self._programs[key] = compiled(program, self.model, self.jit)
        return self._programs[key]


def _strip(tokens: np.ndarray) -> list[int]:
    """Drops the start token, the end token and what follows it."""
    ids = tokens[1:].tolist()
    return ids[: ids.index(END)] if END in ids else ids


class _Decoder:
    """Runs an encoder-decoder's decoder step by step inside a compiled loop, over `rows` target rows."""

    def __init__(self, model: EncoderDecoder, source: KerasTensor, rows: int, places: int):
        self.model = model
        memory, self.segments = model.encode(source)
        self.cache: list[BlockCache] = model.start_cache(memory, rows, places)

    @property
    def tensors(self) -> list[KerasTensor]:
        """What the loop carries: two tensors a layer, never stacked, since a stack would be copied at each step."""
        return [tensor for block in self.cache for tensor in block.self_attention.tensors]

    def step(self, tokens: KerasTensor, position: KerasTensor, tensors) -> tuple[KerasTensor, list[KerasTensor]]:
        """Reads one token a row (R, 1); returns logits (R, V) and the updated tensors."""
        pairs = zip(tensors[::2], tensors[1::2])
        cache = [
            BlockCache(KVCache(key, value, position), block.cross_attention)
            for block, (key, value) in zip(self.cache, pairs)
        ]
        logits = self.model.decode(tokens, None, self.segments, cache=cache, position=position)[:, 0]
        return ops.cast(logits, "float32"), [t for block in cache for t in block.self_attention.tensors]


def _constrain(
    logits: KerasTensor, tokens: KerasTensor, length: KerasTensor, limits: KerasTensor, config: GenerationConfig
) -> KerasTensor:
    """Makes what may not come next impossible: special tokens, an early or a late end, repeated n-grams."""
    vocabulary = ops.arange(logits.shape[-1], dtype="int32")
    if config.no_repeat_ngram:
        logits = sampling.forbid_repeated_ngrams(logits, tokens, length, config.no_repeat_ngram)
    forbidden = ops.equal(vocabulary, PAD) | ops.equal(vocabulary, START) | ops.equal(vocabulary, UNKNOWN)
    forbidden = forbidden | (ops.equal(vocabulary, END) & (length <= config.min_length))
    last = (length >= limits)[:, None]
    return sampling.forbid(logits, ops.where(last, ops.not_equal(vocabulary, END), forbidden[None]))


def _sample(model, source, limits, seeds, places: int, config: GenerationConfig):
    """Takes the likeliest token, or draws one, until every row has ended: tokens (B, 1, L), scores (B, 1)."""
    rows = source.shape[0]
    decoder = _Decoder(model, source, rows, places)

    def go_on(length, tokens, scores, ended, *tensors):
        return ops.any(~ended)

    def body(length, tokens, scores, ended, *cached):
        newest = ops.take(tokens, length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, length - 1, cached)
        logits = _constrain(logits, tokens, length, limits, config)
        if config.sample:
            logits = logits / config.temperature
            logits = sampling.keep_top_k(logits, config.top_k) if config.top_k else logits
            logits = sampling.keep_top_p(logits, config.top_p)
            chosen = sampling.draw(logits, ops.stack([seeds[:, 0] + 65537 * length, seeds[:, 1]], axis=1))
        else:
            chosen = ops.cast(ops.argmax(logits, axis=-1), "int32")
        gained = ops.take_along_axis(logits, chosen[:, None], axis=1)[:, 0] - ops.logsumexp(logits, axis=-1)
        chosen = ops.where(ended, PAD, chosen)
        tokens = ops.slice_update(tokens, (0, length), chosen[:, None])
        scores = ops.where(ended, scores, scores + gained)
        return (length + 1, tokens, scores, ended | ops.equal(chosen, END), *tensors)

    first = ops.broadcast_to(ops.cast(ops.arange(places) < 1, "int32") * START, (rows, places))
    state = (ops.convert_to_tensor(1, "int32"), first, ops.zeros((rows,)), ops.zeros((rows,), "bool"))
    _, tokens, scores, *_ = ops.while_loop(go_on, body, (*state, *decoder.tensors))
    return tokens[:, None], scores[:, None]


def _search(model, source, limits, places: int, config: GenerationConfig):
    """Searches with beams: tokens (B, n_best, L), scores (B, n_best)."""
    rows = source.shape[0] * config.beams
    decoder = _Decoder(model, source, rows, places)
    row_limits = ops.repeat(limits, config.beams)

    def logits_of(state: beam.Beams, tensors):
        tokens = ops.reshape(state.live, (rows, places))
        newest = ops.take(tokens, state.length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, state.length - 1, tensors)
        return _constrain(logits, tokens, state.length, row_limits, config), tensors

    state = beam.start(source.shape[0], config.beams, places, START)
    state = beam.search(logits_of, decoder.tensors, state, limits, END, config.length_penalty)
    return state.ended[:, : config.n_best], state.ended_scores[:, : config.n_best]
