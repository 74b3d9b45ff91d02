"""What generation asks of a model: halves that run one after the other, and tokens that are no words."""

import dataclasses
from collections.abc import Callable
from typing import Any

from zoo.config import Config
from zoo.models.functional import Functional


@dataclasses.dataclass(frozen=True)
class SpecialTokens(Config):
    """Tokens of a vocabulary that are no words; several may be one and the same.

    Args:
        pad: Fills rows.
        start: What a decoder reads first.
        end: Ends a target, and every source.
        never: Tokens that are never generated.
        continuing: Tokens that continue a word, so far as somebody says it.
        joining: Tokens behind which a word may go on with any of these, such as an apostrophe.
        source_start: What stands before every source.
        source_end: What stands behind every source, end first; end alone where it is empty.
        beginning: What every target begins with behind start, such as the name of its language.
        start_optional: Whether start is left out where a target's own beginning is given, whose first token then takes
            its place, in counting too.
    """

    pad: int = 0
    start: int = 1
    end: int = 2
    never: tuple[int, ...] = (0, 1, 3)
    continuing: tuple[int, ...] = ()
    joining: tuple[int, ...] = ()
    source_start: tuple[int, ...] = ()
    source_end: tuple[int, ...] = ()
    beginning: tuple[int, ...] = ()
    start_optional: bool = False

    @property
    def source_ending(self) -> tuple[int, ...]:
        """What stands behind every source."""
        return self.source_end or (self.end,)

    @property
    def around_source(self) -> int:
        """How many tokens stand before and behind every source."""
        return len(self.source_start) + len(self.source_ending)


class Generative(Functional):
    """A functional model to logits that can also be run half by half; config says max_length.

    `encode` and `decode` are the very functions that the functional model was built from, so training and
    generation share one forward path:

        encode(source) -> memory, memory_segments
        decode(target, memory, memory_segments) -> logits
        start_cache(memory, batch, max_length) -> cache
        decode(target, None, memory_segments, cache=cache, position=t) -> logits, the cache updated in place

    A decoder alone has no encode; its memory and memory_segments are None.

    Args:
        encode, decode, start_cache: The halves.
        special_tokens: Of its vocabulary.
        **kwargs: Functional's.
    """

    config: Any

    def __init__(
        self,
        *args: Any,
        decode: Callable,
        start_cache: Callable,
        encode: Callable | None = None,
        special_tokens: SpecialTokens = SpecialTokens(),
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.encode = encode
        self.decode = decode
        self.start_cache = start_cache
        self.special_tokens = special_tokens
