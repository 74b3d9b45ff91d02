"""What is compiled: the loops that take, draw or search for one token after the other."""

import numpy as np
from keras import KerasTensor, ops

from zoo.attention import KVCache
from zoo.generation import beam, sampling
from zoo.generation.config import GenerationConfig
from zoo.generation.layout import FREE
from zoo.layers import BlockCache
from zoo.models.generative import Generative, SpecialTokens


class _Decoder:
    """Runs a model's decoder step by step inside a compiled loop.

    Args:
        model: The model.
        source: What it encodes.
        given: int32 (B, L), what targets begin with.
        read: How many places every row has given; all but the last are read at once.
        copies: How many neighbouring rows go on from each of these B.
    """

    def __init__(self, model: Generative, source: KerasTensor, given: KerasTensor, read: int, copies: int = 1):
        self.model = model
        self.copies = copies
        memory: KerasTensor | None = None
        self.segments: KerasTensor | None = None
        if model.encode is not None:
            memory, self.segments = model.encode(source)
        self.cache: list[BlockCache] = model.start_cache(memory, *given.shape)
        if read > 1:
            model.decode(given[:, : read - 1], None, self.segments, cache=self.cache, position=0)

    @property
    def tensors(self) -> list[KerasTensor]:
        """What the loop carries: two tensors a layer, never stacked, since a stack would be copied at each step."""
        tensors = [tensor for block in self.cache for tensor in block.self_attention.tensors]
        return tensors if self.copies == 1 else [ops.repeat(tensor, self.copies, axis=0) for tensor in tensors]

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
    special: SpecialTokens,
    config: GenerationConfig,
) -> KerasTensor:
    """Makes what may not come next impossible: special tokens, an early or a late end, repeated n-grams.

    Where `given` (R, L) has a token for the place, nothing but that token may come.
    """
    vocabulary = ops.arange(logits.shape[-1], dtype="int32")
    if config.no_repeat_ngram:
        logits = sampling.forbid_repeated_ngrams(logits, tokens, length, config.no_repeat_ngram)
    ends = ops.equal(vocabulary, special.end)
    never = ops.convert_to_tensor(np.isin(np.arange(logits.shape[-1]), special.never))
    forbidden = never | (ends & (length <= config.min_length))
    last = (length >= limits)[:, None]
    forbidden = ops.where(last, ~ends, forbidden[None])
    if given is not None:
        wanted = ops.take(given, length, axis=1)[:, None]
        forbidden = ops.where(ops.equal(wanted, FREE), forbidden, ops.not_equal(vocabulary, wanted))
    return sampling.forbid(logits, forbidden)


def take_or_draw(
    model: Generative, source, limits, seeds, given, read: int, forced: bool, config: GenerationConfig
) -> tuple[KerasTensor, KerasTensor]:
    """Takes the likeliest token, or draws one, until every row has ended.

    Args:
        model: The model.
        source: What it encodes.
        limits: int32 (B,), the most tokens of each target.
        seeds: int32 (B, 2).
        given: int32 (B, L), what targets begin with.
        read: How many places every row has given.
        forced: Whether a row has more given than that.
        config: How.

    Returns:
        Tokens (B, 1, L), scores (B, 1).
    """
    rows = given.shape[0]
    special = model.special_tokens
    decoder = _Decoder(model, source, given, read)

    def go_on(length, tokens, scores, ended, *tensors):
        return ops.any(~ended)

    def body(length, tokens, scores, ended, *cached):
        newest = ops.take(tokens, length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, length - 1, cached)
        logits = _constrain(logits, tokens, length, limits, given if forced else None, special, config)
        if config.sample:
            logits = logits / config.temperature
            logits = sampling.keep_top_k(logits, config.top_k) if config.top_k else logits
            logits = sampling.keep_top_p(logits, config.top_p)
            chosen = sampling.draw(logits, ops.stack([seeds[:, 0] + 65537 * length, seeds[:, 1]], axis=1))
        else:
            chosen = ops.cast(ops.argmax(logits, axis=-1), "int32")
        gained = ops.take_along_axis(logits, chosen[:, None], axis=1)[:, 0] - ops.logsumexp(logits, axis=-1)
        ends = ops.equal(chosen, special.end)
        chosen = ops.where(ended, special.pad, chosen)
        tokens = ops.slice_update(tokens, (0, length), chosen[:, None])
        scores = ops.where(ended, scores, scores + gained)
        return (length + 1, tokens, scores, ended | ends, *tensors)

    first = _first(given, read, special)
    state = (ops.convert_to_tensor(read, "int32"), first, ops.zeros((rows,)), ops.zeros((rows,), "bool"))
    _, tokens, scores, *_ = ops.while_loop(go_on, body, (*state, *decoder.tensors))
    return tokens[:, None], scores[:, None]


def search(
    model: Generative, source, limits, given, read: int, forced: bool, config: GenerationConfig
) -> tuple[KerasTensor, KerasTensor]:
    """Searches with beams: tokens (B, n_best, L), scores (B, n_best); arguments as for take_or_draw()."""
    sources, places = given.shape
    special = model.special_tokens
    decoder = _Decoder(model, source, given, read, config.beams)
    row_limits = ops.repeat(limits, config.beams)
    row_given = ops.repeat(given, config.beams, axis=0) if forced else None

    def logits_of(state: beam.Beams, tensors):
        tokens = ops.reshape(state.live, (sources * config.beams, places))
        newest = ops.take(tokens, state.length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, state.length - 1, tensors)
        return _constrain(logits, tokens, state.length, row_limits, row_given, special, config), tensors

    state = beam.start(_first(given, read, special), config.beams, read)
    penalty = config.length_penalty, config.length_penalty_form
    state = beam.search(logits_of, decoder.tensors, state, limits, special.end, *penalty)
    return state.ended[:, : config.n_best], state.ended_scores[:, : config.n_best]


def _first(given: KerasTensor, read: int, special: SpecialTokens) -> KerasTensor:
    """Returns what the targets' rows hold before the first token is generated."""
    return ops.where(ops.arange(given.shape[1]) < read, given, special.pad)
