"""Global tokens for local attention: the first of each text in a row see all of it and are seen by all of it.

Nothing here is as large as T * T. What makes that possible: where a place's window does not reach the beginning of its
text, that text began before the place's block, and of such texts there is one a block. So each block of queries reads
the leaders of one text more; and leaders read their text block by block, with one softmax in each and one over all.
"""

from collections.abc import Callable

from keras import KerasTensor, ops

from zoo.attention.core import HIDDEN, mix, softmax
from zoo.attention.positions import text_starts
from zoo.attention.scores import Score
from zoo.rows import take_in_rows

# From the places of queries and keys, integer (B, T) and (B, S), to what is added to the logits: RelativeBias, ALiBi.
Bias = Callable[[KerasTensor, KerasTensor], KerasTensor]


class Leaders:
    """Finds the leaders that the blocks of a row need.

    Args:
        segments: Integer (B, T); a text is a run of one number, and 0 is padding.
        window: Places in a block.
        count: Leaders of each text, at most `window`.
    """

    def __init__(self, segments: KerasTensor, window: int, count: int):
        self.batch, self.length = ops.shape(segments)
        self.window = window
        self.count = count
        self.blocks = -(-self.length // window)
        # A text's number is the place behind its first; 0 is no text.
        self.texts = ops.where(segments > 0, text_starts(segments) + 1, 0)
        first = window * ops.arange(self.blocks, dtype="int32")
        self.first = ops.take(self.texts, first, axis=1)
        last = ops.take(self.texts, ops.minimum(first + window - 1, self.length - 1), axis=1)
        # The text that goes on behind the block it began in; any other one is within the window of its leaders.
        self.begun = ops.where(last > first, last, 0)

    def seen(self, key: KerasTensor, value: KerasTensor, query_texts: KerasTensor, bias: Bias | None):
        """Gathers what the queries of each block see besides their neighbourhood: leaders of the first place's text.

        Args:
            key: (B, T, K, H).
            value: (B, T, K, Hv).
            query_texts: The places' texts, block by block, (B * blocks, window).
            bias: Of distances.

        Returns:
            Keys and values (B * blocks, count, K, ...), their mask (B * blocks, 1, window, count), and their bias.
        """
        places, real = self._of(self.first[:, :, None])
        queries = self._block_places()
        same = ops.equal(query_texts, ops.reshape(self.first, (-1, 1)))
        far = queries[:, :, None] - places[:, None, :] >= self.window
        mask = real[:, None, :] & same[:, :, None] & far
        added = None if bias is None else bias(queries, places)
        return self._taken(key, places), self._taken(value, places), mask[:, None], added

    def see(
        self,
        query: KerasTensor,
        key: KerasTensor,
        value: KerasTensor,
        key_texts: KerasTensor,
        y: KerasTensor,
        *,
        score: Score,
        bias: Bias | None,
        dropout: Callable[[KerasTensor], KerasTensor] | None,
    ) -> KerasTensor:
        """Lets leaders see all of their text.

        Args:
            query: (B, T, N, H).
            key: Block by block, (B * blocks, window, K, H).
            value: Block by block, (B * blocks, window, K, Hv).
            key_texts: Block by block, (B * blocks, window).
            y: (B, T, N, Hv), what all places see of their neighbourhood.
            score, bias, dropout: As in local_attend().

        Returns:
            y with what leaders see.
        """
        batch, blocks, count = self.batch, self.blocks, self.count
        num_heads, width = query.shape[2], value.shape[3]

        # Each block answers the leaders of two texts: that of its first place, and one that begins in it.
        texts = ops.stack([self.first, ops.where(ops.equal(self.begun, self.first), 0, self.begun)], axis=2)
        places, real = self._of(texts)
        asking = ops.repeat(ops.reshape(texts, (batch * blocks, 2)), count, axis=1)
        mask = (real[:, :, None] & ops.equal(asking[:, :, None], key_texts[:, None, :]))[:, None]
        logits = ops.cast(score(self._taken(query, places), key), "float32")
        if bias is not None:
            logits = logits + ops.cast(bias(places, self._block_places()), "float32")
        weights = softmax(logits, mask)
        weights = weights if dropout is None else dropout(weights)
        answers = mix(ops.cast(weights, value.dtype), value)

        # An answer weighs as much as its exponentials do together: a softmax over the answers that each text got, which
        # are known by the block where it begins.
        begins = ops.maximum(texts - 1, 0) // self.window
        begins = ops.reshape(begins, (batch, 2 * blocks))
        mine = ops.reshape(take_in_rows(self.begun, begins), (batch * blocks, 2))
        counts = ops.repeat(ops.equal(mine, ops.reshape(texts, (batch * blocks, 2))), count, axis=1)[:, None]
        totals = ops.logsumexp(ops.where(mask, logits, HIDDEN), axis=-1)
        totals = ops.where(ops.any(mask, axis=-1) & counts, totals, HIDDEN)
        totals = ops.reshape(ops.transpose(totals, (0, 2, 1)), (batch * blocks * 2, count * num_heads))
        numbers = ops.reshape(begins + blocks * ops.arange(batch, dtype="int32")[:, None], (-1,))
        highest = ops.stop_gradient(ops.take(ops.segment_max(totals, numbers, batch * blocks), numbers, axis=0))
        shares = ops.where(totals > HIDDEN / 2, ops.exp(totals - highest), 0.0)
        sums = ops.segment_sum(shares, numbers, batch * blocks)
        shares = shares / ops.take(ops.where(sums > 0, sums, 1.0), numbers, axis=0)
        answers = ops.reshape(answers, (batch * blocks * 2, count * num_heads, width))
        whole = ops.segment_sum(ops.cast(shares, value.dtype)[..., None] * answers, numbers, batch * blocks)
        whole = ops.reshape(whole, (batch, blocks * count, num_heads, width))

        start = self.texts - 1
        place = ops.arange(self.length, dtype="int32") - start
        block = ops.maximum(start, 0) // self.window
        leads = (self.texts > 0) & (place < count) & ops.equal(take_in_rows(self.begun, block), self.texts)
        whole = take_in_rows(whole, block * count + ops.minimum(place, count - 1))
        return ops.where(leads[:, :, None, None], whole, y)

    def _of(self, texts: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Returns the leaders' places of texts (B, blocks, n), and which are real, (B * blocks, n * count) both."""
        texts = ops.reshape(texts, (self.batch, -1, 1))
        places = texts - 1 + ops.arange(self.count, dtype="int32")
        places = ops.reshape(ops.clip(places, 0, self.length - 1), (self.batch, -1))
        texts = ops.reshape(ops.repeat(texts, self.count, axis=2), (self.batch, -1))
        real = ops.equal(take_in_rows(self.texts, places), texts) & (texts > 0)
        return tuple(ops.reshape(x, (self.batch * self.blocks, -1)) for x in (places, real))  # type: ignore[return-value]

    def _taken(self, x: KerasTensor, places: KerasTensor) -> KerasTensor:
        taken = take_in_rows(x, ops.reshape(places, (self.batch, -1)))
        return ops.reshape(taken, (*ops.shape(places), *x.shape[2:]))

    def _block_places(self) -> KerasTensor:
        """Returns the places of each block, (B * blocks, window)."""
        places = ops.reshape(ops.arange(self.blocks * self.window, dtype="int32"), (1, self.blocks, self.window))
        places = ops.broadcast_to(places, (self.batch, self.blocks, self.window))
        return ops.reshape(places, (self.batch * self.blocks, self.window))
