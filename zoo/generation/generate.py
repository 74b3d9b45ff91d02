"""From sources to hypotheses: fixed shapes in, one XLA program a shape, order kept."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from keras import ops

from zoo.generation.compile import Program, compiled
from zoo.generation.config import GenerationConfig
from zoo.generation.layout import Beginnings, Source, begin, bucket, lay_out, length_of, rounded_up, strip
from zoo.generation.programs import Rows, search, take_or_draw
from zoo.models.generative import Generative

# Programs are compiled for these many sources at a time; a smaller batch is filled up with empty sources.
BATCH_SIZES = (1, 8, 32)
# Of longer sources there are fewer at a time, so that a batch has no more places than this.
BATCH_PLACES = 32 * 512


class Hypothesis(NamedTuple):
    """One generated target: its tokens without start and end, and its score (log-probability, length-penalized)."""

    tokens: list[int]
    score: float


class _Batch(NamedTuple):
    """A batch as it is laid out: a program's arguments, what targets begin with, and places that they may ever take."""

    inputs: Any
    rows: Rows
    begun: Beginnings
    most: int


class Generator:
    """Generates targets for any number of sources of any length.

    Sources are sorted by length into batches of a few fixed shapes, so that a program is compiled once for each
    shape and kept. Neither order nor batching shows in the result.

    Args:
        model: An encoder-decoder, or a decoder alone.
        jit: Whether XLA compiles the programs.
    """

    def __init__(self, model: Generative, jit: bool = True):
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
                "prompt": token ids}. Of a decoder alone, what its targets begin with.
            config: How.
            beginnings: Token ids that each source's targets begin with; they are part of the hypotheses.

        Returns:
            For each source, in the order given, its hypotheses.

        Raises:
            ValueError: If a source, or a beginning, is longer than the model allows, or a beginning holds the end.
        """
        if self.model.encode is None and beginnings is not None:
            raise ValueError("beginnings: the model is a decoder alone; its sources are what targets begin with")
        beginnings = self._beginnings(sources, beginnings)
        self._check(sources, beginnings)
        results: list[list[Hypothesis]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda i: length_of(sources[i]))
        while order:
            size = self._batch_size(sources, order)
            batch, order = order[:size], order[size:]
            for i, hypotheses in zip(batch, self._run(sources, beginnings, batch, config)):
                results[i] = hypotheses
        return results

    def _batch_size(self, sources: Sequence[Source], order: list[int]) -> int:
        """Returns how many of the first sources, which are the shortest, make a batch."""
        special, longest = self.model.special_tokens, self.model.config.max_length
        for size, larger in itertools.pairwise(BATCH_SIZES):
            places = bucket([sources[i] for i in order[:larger]], special, longest)
            if larger * places > BATCH_PLACES or len(order) <= size:
                return size
        return larger

    def _check(self, sources: Sequence[Source], beginnings: Sequence[Sequence[int]] | None) -> None:
        special, longest = self.model.special_tokens, self.model.config.max_length
        for kind, given, others in (
            ("input", sources, special.around_source),
            ("beginning", beginnings or (), 1 + len(special.beginning)),
        ):
            for i, tokens in enumerate(given):
                most = longest - others
                if isinstance(tokens, Sequence) and len(tokens) > most:
                    raise ValueError(f"{kind} {i + 1}: {len(tokens)} tokens; the model takes at most {most}")
        for i, tokens in enumerate(beginnings or ()):
            if special.end in tokens:
                raise ValueError(f"beginning {i + 1}: it holds token {special.end}, which ends targets")

    def _run(
        self,
        sources: Sequence[Source],
        beginnings: Sequence[Sequence[int]] | None,
        batch: Sequence[int],
        config: GenerationConfig,
        places: int = 0,
    ) -> list[list[Hypothesis]]:
        """Runs one program on one batch of sources, given by their numbers.

        Targets may be allowed to grow far longer than they do, and every place costs memory and time. So a program has
        `places` for as many tokens as there would be without max_length, and where that is not enough, a program with
        twice as many is run for what has not ended.
        """
        laid_out = self._lay_out(sources, beginnings, batch, config, places)
        begun, limits = laid_out.begun, laid_out.rows.limits
        special, places = self.model.special_tokens, begun.tokens.shape[1]
        program = self._program(config, begun.read, begun.forced)
        tokens, scores, ended = (ops.convert_to_numpy(x) for x in program(laid_out.inputs, laid_out.rows))
        hypotheses = [
            [
                Hypothesis(strip(tokens[r, k, : limits[r] + 1], said, special), float(scores[r, k]))
                for k in range(tokens.shape[1])
            ]
            for r, said in enumerate(begun.said)
        ]
        goes_on = [r for r in range(len(batch)) if not ended[r]]
        if goes_on and places < laid_out.most:
            others = self._run(sources, beginnings, [batch[r] for r in goes_on], config, 2 * places)
            for r, longer in zip(goes_on, others):
                hypotheses[r] = longer
        return hypotheses

    def _lay_out(
        self,
        sources: Sequence[Source],
        beginnings: Sequence[Sequence[int]] | None,
        batch: Sequence[int],
        config: GenerationConfig,
        places: int,
    ) -> _Batch:
        """Lays one batch of sources out: see _run()."""
        special, longest = self.model.special_tokens, self.model.config.max_length
        size = next(size for size in BATCH_SIZES if size >= len(batch))
        found = [sources[i] for i in batch]
        beginning = [[] if beginnings is None else beginnings[i] for i in batch]
        inputs = None if self.model.encode is None else lay_out(found, size, special, longest)
        given = rounded_up(max(map(len, beginning))) if any(map(len, beginning)) else 0
        source_places = bucket(found, special, longest) - special.around_source
        most = min(self._limit(source_places, config) + given, longest) + 1
        places = min(places or _usual(source_places) + given + 1, most)
        begun = begin(beginning, size, places, special)
        # Where a target need not end, the place of its end stays free.
        last = longest if config.force_end else longest - 1
        limits = np.full((size,), 1, np.int32)
        seeds = np.zeros((size, 2), np.int32)
        for row, i in enumerate(batch):
            limits[row] = min(begun.uncounted[row] + self._limit(length_of(sources[i]), config), last)
            seeds[row] = (config.seed, i * config.n_best)
        return _Batch(inputs, Rows(limits, begun.uncounted, seeds, begun.tokens), begun, most)

    def _limit(self, source_length: int, config: GenerationConfig) -> int:
        limit = _usual(source_length) if config.max_length is None else config.max_length
        least = max(config.min_length, len(self.model.special_tokens.beginning)) + config.force_end
        return min(max(limit, least), self.model.config.max_length)

    def uncompiled(self, sources: Sequence[Source], config: GenerationConfig) -> Program:
        """Returns the program that generates targets of one batch of sources, as many as a batch may have."""
        batch = self._lay_out(sources, self._beginnings(sources), range(len(sources)), config, 0)
        function = self._function(config, batch.begun.read, batch.begun.forced)
        return Program(function, self.model, (batch.inputs, batch.rows))

    def _beginnings(
        self, sources: Sequence[Source], given: Sequence[Sequence[int]] | None = None
    ) -> Sequence[Sequence[int]] | None:
        """Returns what targets begin with: of a decoder alone, the sources."""
        return given if self.model.encode is not None else cast(Sequence[Sequence[int]], sources)

    def _program(self, config: GenerationConfig, read: int, forced: bool) -> Callable:
        """Returns a program, compiled at its first call for a shape."""
        key = (dataclasses.replace(config, seed=0), self.model.special_tokens, read, forced)
        if key not in self._programs:
            self._programs[key] = compiled(self._function(config, read, forced), self.model, self.jit)
        return self._programs[key]

    def _function(self, config: GenerationConfig, read: int, forced: bool) -> Callable:
        find = search if config.beams > 1 else take_or_draw
        return lambda source, rows: find(self.model, source, rows, read, forced, config)


def _usual(source_length: int) -> int:
    """How many tokens a target has at most where nobody says it."""
    return 2 * source_length + 10
