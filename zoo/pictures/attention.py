"""Attention maps of a source and its target, as a PNG or as a page to click through."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from zoo.pictures.heads import KINDS, Head, Kind, chosen, draw_heads, page
from zoo.pictures.picture import Picture


@dataclasses.dataclass(frozen=True)
class AttentionMaps(Picture):
    """Where every head of every layer looks, for one source and one target.

    Args:
        source_tokens: S tokens.
        target_tokens: The T tokens that the decoder read: the start token, then the target.
        maps: Layer path -> (N, queries, keys). A path with "encoder/" goes from source to source, one with
            "cross_attention" from target to source, all others from target to target.

    Raises:
        ValueError: If there is no map, or one that does not fit its tokens.
    """

    source_tokens: Sequence[str]
    target_tokens: Sequence[str]
    maps: dict[str, np.ndarray]

    def __post_init__(self):
        if not self.maps:
            raise ValueError("maps: none; no layer of this model has weights of attention to show")
        self.kinds()

    def tokens(self, path: str) -> tuple[Sequence[str], Sequence[str]]:
        """Returns the tokens beside a map: those of its queries, and those of its keys.

        A decoder's query is named after the token that comes of it, not the one that was read: whoever asks where
        the model looked when it wrote "Hunde" finds it in the row "Hunde".
        """
        if path.startswith("encoder/"):
            return self.source_tokens, self.source_tokens
        written = [*self.target_tokens[1:], "</s>"]
        return written, self.source_tokens if "cross_attention" in path else self.target_tokens

    def kinds(self) -> list[Kind]:
        found: dict[str, dict[str, np.ndarray]] = {}
        for path, heads in self.maps.items():
            kind = "cross" if "cross_attention" in path else "encoder" if path.startswith("encoder/") else "decoder"
            found.setdefault(kind, {})[path] = heads
        return [Kind(name, *self.tokens(next(iter(found[name]))), found[name]) for name in KINDS if name in found]

    def to_figure(self, kind: str | None = None, layer: int | None = None, head: Head | None = None):
        """Draws one kind of attention as a matplotlib figure: a row for each layer, a column for each head.

        Args:
            kind: "encoder", "decoder" or "cross"; cross-attention where None, if there is some.
            layer: The only layer to draw, from 1.
            head: The only head to draw, from 1, or "mean".

        Raises:
            ValueError: For something that is not there; it says what is.
        """
        return draw_heads(chosen(self.kinds(), kind, layer, head), layer, head)

    def to_html(self, kind: str | None = None, layer: int | None = None, head: Head | None = None) -> str:
        """Returns one page that shows any layer's heads; it loads nothing from anywhere.

        Args:
            kind: What the page begins with; cross-attention where None, if there is some.
            layer: The layer that it begins with, from 1; the last where None.
            head: The head that it begins with, from 1; the mean of all heads where None.

        Raises:
            ValueError: For something that is not there; it says what is.
        """
        kinds = self.kinds()
        return page(kinds, chosen(kinds, kind, layer, head), layer, head)
