"""From sources to hypotheses: fixed shapes in, one XLA program a shape, order kept."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

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


# What a target is generated from: token ids; the features of an image (S, E); or {"features", "prompt"}, both.
Source: TypeAlias = Sequence[int] | np.ndarray | Mapping[str, Any]


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
        self,
        sources: Sequence[Source],
        config: GenerationConfig = GenerationConfig(),
        beginnings: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """Generates `config.n_best` hypotheses for each source, best first.

        Args:
            sources: Token ids without special tokens; or features (S, E), all of the same shape; or {"features": ...,
                "prompt": token ids}.
            config: How.
            beginnings: Token ids that each source's targets begin with.

        Returns:
            For each source, in the order given, its hypotheses.

        Raises:
            ValueError: If a source, or a beginning, is longer than the model allows.
        """
        longest = self.model.config.max_length
        for kind, given in (("input", sources), ("beginning", beginnings or ())):
            for i, tokens in enumerate(given):
                if isinstance(tokens, Sequence) and len(tokens) + 1 > longest:
                    raise ValueError(f"{kind} {i + 1}: {len(tokens)} tokens; the model takes at most {longest - 1}")
        results: list[list[Hypothesis]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda i: _length(sources[i]))
        copies = config.n_best if config.sample else 1
        work = [(i, copy) for i in order for copy in range(copies)]
        while work:
            size = next((size for size in BATCH_SIZES if size >= len(work)), BATCH_SIZES[-1])
            batch, work = work[:size], work[size:]
            for (i, _), hypotheses in zip(batch, self._run(sources, beginnings, batch, size, config)):
                results[i] += hypotheses
        return results

    def _run(self, sources, beginnings, batch: list[tuple[int, int]], size: int, config: GenerationConfig) -> list:
        """Runs one program on one batch of (source number, sample number)."""
        found = [sources[i] for i, _ in batch]
        inputs = _lay_out(found, size, self.model.config.max_length)
        places = self._limit(_bucket(found, self.model.config.max_length) - 1, config) + 1
        limits = np.full((size,), 1, np.int32)
        seeds = np.zeros((size, 2), np.int32)
        given = np.full((size, places), PAD, np.int32)
        for row, (i, copy) in enumerate(batch):
            limits[row] = self._limit(_length(sources[i]), config)
            seeds[row] = (config.seed, i * config.n_best + copy)
            if beginnings is not None:
                tokens = beginnings[i][: places - 2]
                given[row, 1 : len(tokens) + 1] = tokens
        arguments = (inputs, limits, seeds) if beginnings is None else (inputs, limits, seeds, given)
        tokens, scores = self._program(config, places)(*arguments)
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

            def program(source, limits, seeds, given=None):
                if config.beams > 1:
                    return _search(self.model, source, limits, given, places, config)
                return _sample(self.model, source, limits, seeds, given, places, config)

            self._programs[key] = compiled(program, self.model, self.jit)
        return self._programs[key]


def _lay_out(sources: Sequence[Source], rows: int, max_length: int) -> Any:
    """Lays sources out: features one behind the other, tokens each followed by END in the places of a bucket."""
    first = sources[0]
    if isinstance(first, Mapping):
        parts = cast(Sequence[Mapping[str, Any]], sources)
        return {name: _lay_out([source[name] for source in parts], rows, max_length) for name in first}
    if isinstance(first, np.ndarray):
        array = np.zeros((rows, *first.shape), np.float32)
        array[: len(sources)] = sources
        return array
    array = np.full((rows, _bucket(sources, max_length)), PAD, np.int32)
    array[:, 0] = END
    for row, source in enumerate(sources):
        array[row, : len(source) + 1] = [*source, END]
    return array


def _bucket(sources: Sequence[Source], max_length: int) -> int:
    """Returns the places that sources, with END, are laid out in."""
    longest = max(_length(source) + 1 for source in sources)
    bucket = SHORTEST
    while bucket < longest:
        bucket *= 2
    return min(bucket, max_length)


def _length(source: Source) -> int:
    """Counts the tokens of a source, or the places of an image's features."""
    return len(source["features"] if isinstance(source, Mapping) else source)


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
    logits: KerasTensor,
    tokens: KerasTensor,
    length: KerasTensor,
    limits: KerasTensor,
    given: KerasTensor | None,
    config: GenerationConfig,
) -> KerasTensor:
    """Makes what may not come next impossible: special tokens, an early or a late end, repeated n-grams.

    Where `given` (R, L) has a token for the place, nothing but that token may come.
    """
    vocabulary = ops.arange(logits.shape[-1], dtype="int32")
    if config.no_repeat_ngram:
        logits = sampling.forbid_repeated_ngrams(logits, tokens, length, config.no_repeat_ngram)
    forbidden = ops.equal(vocabulary, PAD) | ops.equal(vocabulary, START) | ops.equal(vocabulary, UNKNOWN)
    forbidden = forbidden | (ops.equal(vocabulary, END) & (length <= config.min_length))
    last = (length >= limits)[:, None]
    forbidden = ops.where(last, ops.not_equal(vocabulary, END), forbidden[None])
    if given is not None:
        wanted = ops.take(given, length, axis=1)[:, None]
        forbidden = ops.where(ops.equal(wanted, PAD), forbidden, ops.not_equal(vocabulary, wanted))
    return sampling.forbid(logits, forbidden)


def _sample(model, source, limits, seeds, given, places: int, config: GenerationConfig):
    """Takes the likeliest token, or draws one, until every row has ended: tokens (B, 1, L), scores (B, 1)."""
    rows = limits.shape[0]
    decoder = _Decoder(model, source, rows, places)

    def go_on(length, tokens, scores, ended, *tensors):
        return ops.any(~ended)

    def body(length, tokens, scores, ended, *cached):
        newest = ops.take(tokens, length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, length - 1, cached)
        logits = _constrain(logits, tokens, length, limits, given, config)
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


def _search(model, source, limits, given, places: int, config: GenerationConfig):
    """Searches with beams: tokens (B, n_best, L), scores (B, n_best)."""
    rows = limits.shape[0] * config.beams
    decoder = _Decoder(model, source, rows, places)
    row_limits = ops.repeat(limits, config.beams)
    row_given = None if given is None else ops.repeat(given, config.beams, axis=0)

    def logits_of(state: beam.Beams, tensors):
        tokens = ops.reshape(state.live, (rows, places))
        newest = ops.take(tokens, state.length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, state.length - 1, tensors)
        return _constrain(logits, tokens, state.length, row_limits, row_given, config), tensors

    state = beam.start(limits.shape[0], config.beams, places, START)
    state = beam.search(logits_of, decoder.tensors, state, limits, END, config.length_penalty)
    return state.ended[:, : config.n_best], state.ended_scores[:, : config.n_best]
