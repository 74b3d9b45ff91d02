"""What is compiled: the loops that take, draw or search for one token after the other."""

from typing import NamedTuple

import numpy as np
from keras import KerasTensor, ops

from zoo.attention import KVCache
from zoo.generation import beam, sampling
from zoo.generation.config import GenerationConfig
from zoo.generation.layout import FREE
from zoo.layers import BlockCache
from zoo.models.generative import Generative, SpecialTokens


class Rows(NamedTuple):
    """What is asked of each of B targets, of which each has L places.

    Attributes:
        limits: int32 (B,), the most tokens behind the start token, given ones included.
        uncounted: int32 (B,), how many tokens no length counts, since they were given.
        seeds: int32 (B, 2), of a source's first draw; the second number rises by 1 with each of its draws.
        given: int32 (B, L), what targets begin with; FREE behind it.
    """

    limits: KerasTensor
    uncounted: KerasTensor
    seeds: KerasTensor
    given: KerasTensor


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
        self.source = source
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

    @property
    def sources(self) -> KerasTensor:
        """What each row's source is: as many rows as there are targets in work."""
        return self.source if self.copies == 1 else ops.repeat(self.source, self.copies, axis=0)

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
    rows: Rows,
    forced: bool,
    decoder: _Decoder,
    config: GenerationConfig,
) -> KerasTensor:
    """Makes what may not come next impossible: special tokens, bad and broken words, early and late ends, repetitions.

    Where a token is given for the place, and `forced`, nothing but that token may come. Where logits are not to be
    normalized again, the only token that may come has a log-probability of 0.
    """
    special = decoder.model.special_tokens
    vocabulary = ops.arange(logits.shape[-1], dtype="int32")
    if config.whole_words and special.continuing:
        latest = ops.take(tokens, length - 1, axis=1)
        kinds = (np.isin(np.arange(logits.shape[-1]), kind) for kind in (special.continuing, special.joining))
        logits = sampling.forbid_broken_words(logits, latest, decoder.sources, *map(ops.convert_to_tensor, kinds))
    if config.no_repeat_ngram:
        logits = sampling.forbid_repeated_ngrams(logits, tokens, length, config.no_repeat_ngram)
    logits = sampling.forbid_words(logits, tokens, length, [word for word in config.bad_words if len(word) > 1])
    ends = ops.equal(vocabulary, special.end)
    alone = [word[0] for word in config.bad_words if len(word) == 1 and word[0] != special.end]
    never = ops.convert_to_tensor(np.isin(np.arange(logits.shape[-1]), [*special.never, *alone]))
    early = (length <= rows.uncounted + config.min_length)[:, None]
    logits = sampling.forbid(logits, never | (ends & early))
    certain = None if config.renormalize else 0.0
    if config.force_end:
        logits = sampling.force(logits, ends, (length >= rows.limits)[:, None], certain)
    if forced:
        wanted = ops.take(rows.given, length, axis=1)[:, None]
        logits = sampling.force(logits, ops.equal(vocabulary, wanted), ops.not_equal(wanted, FREE), certain)
    return logits


def _log_probabilities(logits: KerasTensor) -> KerasTensor:
    return logits - ops.logsumexp(logits, axis=-1, keepdims=True)


def take_or_draw(
    model: Generative, source, rows: Rows, read: int, forced: bool, config: GenerationConfig
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Takes the likeliest token, or draws one, until every row has ended; n_best draws share the work on a source.

    Args:
        model: The model.
        source: What it encodes.
        rows: What is asked of each target.
        read: How many places every row has given.
        forced: Whether a row has more given than that.
        config: How.

    Returns:
        Tokens (B, n_best, L), scores (B, n_best), and whether all targets of a source have ended, or one would need
        more places (B,).
    """
    special = model.special_tokens
    decoder = _Decoder(model, source, rows.given, read, config.n_best)
    sources, places = rows.given.shape
    rows = Rows(*(ops.repeat(x, config.n_best, axis=0) for x in rows))
    numbers = rows.seeds[:, 1] + ops.tile(ops.arange(config.n_best, dtype="int32"), sources)

    def go_on(length, tokens, scores, ended, *tensors):
        return ops.any(~ended) & (length < tokens.shape[1])

    def body(length, tokens, scores, ended, *cached):
        newest = ops.take(tokens, length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, length - 1, cached)
        logits = _constrain(logits, tokens, length, rows, forced, decoder, config)
        if config.sample:
            logits = logits / config.temperature
            logits = sampling.keep_top_k(logits, config.top_k) if config.top_k else logits
            logits = sampling.keep_top_p(logits, config.top_p)
            chosen = sampling.draw(logits, ops.stack([rows.seeds[:, 0] + 65537 * length, numbers], axis=1))
        else:
            chosen = sampling.likeliest(logits)
        gained = ops.take_along_axis(logits, chosen[:, None], axis=1)[:, 0] - ops.logsumexp(logits, axis=-1)
        ends = ops.equal(chosen, special.end)
        if not config.force_end:
            ends = ends | (length >= rows.limits)
        chosen = ops.where(ended, special.pad, chosen)
        tokens = ops.slice_update(tokens, (0, length), chosen[:, None])
        scores = ops.where(ended, scores, scores + gained)
        return (length + 1, tokens, scores, ended | ends, *tensors)

    first = _first(rows.given, read, special)
    scores = ops.zeros((first.shape[0],))
    state = (ops.convert_to_tensor(read, "int32"), first, scores, ops.zeros_like(scores, "bool"))
    _, tokens, scores, ended, *_ = ops.while_loop(go_on, body, (*state, *decoder.tensors))
    shape = (sources, config.n_best)
    return ops.reshape(tokens, (*shape, places)), ops.reshape(scores, shape), ops.all(ops.reshape(ended, shape), axis=1)


def search(
    model: Generative, source, rows: Rows, read: int, forced: bool, config: GenerationConfig
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Searches with beams: tokens (B, n_best, L), scores (B, n_best), ended (B,); otherwise as take_or_draw()."""
    special = model.special_tokens
    decoder = _Decoder(model, source, rows.given, read, config.beams)
    beams = Rows(*(ops.repeat(x, config.beams, axis=0) for x in rows))

    def logits_of(state: beam.Beams, tensors):
        tokens = ops.reshape(state.live, beams.given.shape)
        newest = ops.take(tokens, state.length - 1, axis=1)[:, None]
        logits, tensors = decoder.step(newest, state.length - 1, tensors)
        logits = logits if config.renormalize else _log_probabilities(logits)
        return _constrain(logits, tokens, state.length, beams, forced, decoder, config), tensors

    state = beam.start(_first(rows.given, read, special), config.beams, read)
    penalty = config.length_penalty, config.length_penalty_form, rows.uncounted
    rules = beam.Rules(config.early_stopping, config.late_ends, not config.force_end, not config.renormalize)
    state = beam.search(logits_of, decoder.tensors, state, rows.limits, special.end, *penalty, rules)
    open_sources = beam.unfinished(state, rows.limits, *penalty, rules)
    return state.ended[:, : config.n_best], state.ended_scores[:, : config.n_best], ~open_sources


def _first(given: KerasTensor, read: int, special: SpecialTokens) -> KerasTensor:
    """Returns what the targets' rows hold before the first token is generated."""
    return ops.where(ops.arange(given.shape[1]) < read, given, special.pad)
