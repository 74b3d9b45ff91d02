"""Beam search: keep the likeliest beginnings, freeze what has ended, stop when nothing better can come."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from keras import KerasTensor, ops

from zoo.generation.sampling import IMPOSSIBLE, largest
from zoo.rows import take_in_rows

Form = Literal["gnmt", "power"]


class Rules(NamedTuple):
    """In what searches differ.

    Attributes:
        early_stopping: When a source's search ends: see GenerationConfig.
        late_ends: Whether a continuation that ends may be any of the 2K best, or only of the K best.
        cut: Whether what has reached its limit has ended, whatever its last token.
        normalized: Whether logits are log-probabilities, to be taken as they are.
    """

    early_stopping: Literal["never", "heuristic", "full"] = "never"
    late_ends: bool = True
    cut: bool = False
    normalized: bool = False


class Beams(NamedTuple):
    """The state of a search over B sources with K beams each; L places a sequence."""

    length: KerasTensor  # places filled in every live sequence, the start token included
    live: KerasTensor  # int32 (B, K, L)
    live_scores: KerasTensor  # (B, K), summed log-probabilities
    ended: KerasTensor  # int32 (B, K, L), best first
    ended_scores: KerasTensor  # (B, K), with length penalty; IMPOSSIBLE where there is none yet


def length_penalty(length: int | KerasTensor, alpha: float, form: Form = "gnmt") -> KerasTensor:
    """Divides a sequence's score; `length` counts all of its tokens but the start token.

    Args:
        length: Tokens.
        alpha: Exponent.
        form: "gnmt" is ((5 + length) / 6) ** alpha, "power" is length ** alpha.

    Source: Wu et al. 2016, equation 14; "power": Jean et al. 2015, as the library transformers has it.
    """
    length = ops.cast(length, "float32")
    return ((5.0 + length) / 6.0 if form == "gnmt" else length) ** alpha


def start(tokens: KerasTensor, beams: int, length: int = 1) -> Beams:
    """Begins a search: one live beam a source, since the others would only repeat it.

    Args:
        tokens: int32 (B, L), what each source's targets begin with.
        beams: K.
        length: How many of the places are filled.
    """
    sources, places = tokens.shape
    tokens = ops.broadcast_to(tokens[:, None], (sources, beams, places))
    scores = ops.broadcast_to(ops.where(ops.arange(beams) < 1, 0.0, IMPOSSIBLE), (sources, beams))
    return Beams(
        ops.convert_to_tensor(length, "int32"),
        tokens,
        scores,
        tokens,
        ops.full((sources, beams), IMPOSSIBLE, "float32"),
    )


def advance(
    state: Beams,
    logits: KerasTensor,
    end_token: int,
    alpha: float,
    form: Form = "gnmt",
    uncounted: KerasTensor | int = 0,
    limits: KerasTensor | None = None,
    rules: Rules = Rules(),
) -> tuple[Beams, KerasTensor]:
    """Extends every live beam by one token.

    The 2K best continuations are looked at: even if K of them end, K stay alive.

    Args:
        state: The search.
        logits: (B * K, V), impossible tokens at IMPOSSIBLE.
        end_token: Ends a sequence.
        alpha, form: The length penalty's.
        uncounted: (B,), tokens that were given, which the length penalty does not count.
        limits: (B,), the most tokens of each source's targets; for rules.cut.
        rules: The search's.

    Returns:
        The next state; and int32 (B, K), which of its source's beams each live one continues.
    """
    sources, beams, places = state.live.shape
    vocabulary = logits.shape[-1]
    values, tokens = largest(logits, min(2 * beams, vocabulary))
    choices = values.shape[-1]
    if not rules.normalized:
        values = values - ops.logsumexp(logits, axis=-1, keepdims=True)
    values = ops.reshape(values, (sources, beams, choices)) + state.live_scores[:, :, None]
    scores, index = ops.top_k(ops.reshape(values, (sources, beams * choices)), min(2 * beams, beams * choices))
    tokens = ops.take_along_axis(ops.reshape(tokens, (sources, beams * choices)), index, axis=1)
    parents = ops.cast(index, "int32") // choices

    extended = _pick(state.live, parents)
    here = ops.equal(ops.arange(places, dtype="int32"), state.length)
    extended = ops.where(here, tokens[:, :, None], extended)
    ends = ops.equal(tokens, end_token)
    if rules.cut and limits is not None:
        ends = ends | (state.length >= limits)[:, None]

    live_scores, survivors = ops.top_k(ops.where(ends, IMPOSSIBLE, scores), beams)
    penalized = scores / ops.reshape(length_penalty(_counted(state.length, uncounted), alpha, form), (-1, 1))
    counts = ends & (scores > IMPOSSIBLE / 2)
    if not rules.late_ends:
        counts = counts & (ops.arange(ends.shape[1]) < beams)
    pool = ops.concatenate([state.ended_scores, ops.where(counts, penalized, IMPOSSIBLE)], 1)
    ended_scores, winners = ops.top_k(pool, beams)
    ended = _pick(ops.concatenate([state.ended, extended], axis=1), winners)

    parents = ops.take_along_axis(parents, survivors, axis=1)
    return Beams(state.length + 1, _pick(extended, survivors), live_scores, ended, ended_scores), parents


def unfinished(
    state: Beams,
    limits: KerasTensor,
    alpha: float,
    form: Form = "gnmt",
    uncounted: KerasTensor | int = 0,
    rules: Rules = Rules(),
) -> KerasTensor:
    """Tells which sources' searches go on.

    A live beam's score only falls; divided by the largest penalty it may reach, it bounds all that may come of it. The
    heuristic divides it by the penalty of the length it has.

    Args:
        state: The search.
        limits: (B,), the most tokens of each source's targets, given ones included.
        alpha, form, uncounted, rules: As for advance().

    Returns:
        Boolean (B,).
    """
    within = state.length <= limits
    if rules.early_stopping == "full":
        return within & (state.ended_scores[:, -1] < IMPOSSIBLE / 2)
    length = limits if alpha > 0 else state.length
    if rules.early_stopping == "heuristic":
        length = state.length - 1
    bound = state.live_scores[:, 0] / length_penalty(_counted(length, uncounted), alpha, form)
    return within & (bound > state.ended_scores[:, -1])


def _counted(length: KerasTensor, uncounted: KerasTensor | int) -> KerasTensor:
    """Returns what the length penalty counts; while tokens that were given are gone through, that is nothing yet."""
    return ops.maximum(length - uncounted, 1)


def _pick(sequences: KerasTensor, index: KerasTensor) -> KerasTensor:
    """Picks sequences (B, many, L) by index (B, few)."""
    return ops.take_along_axis(sequences, ops.cast(index, "int32")[:, :, None], axis=1)


def search(
    logits_of: Callable,
    tensors: list[KerasTensor],
    state: Beams,
    limits: KerasTensor,
    end_token: int,
    alpha: float,
    form: Form = "gnmt",
    uncounted: KerasTensor | int = 0,
    rules: Rules = Rules(),
) -> Beams:
    """Runs a search to its end.

    Args:
        logits_of: Maps a state and the decoder's tensors to logits (B * K, V) and the tensors after this step.
        tensors: What the decoder carries from step to step, rows in the order of the beams.
        state: Where to begin.
        limits: (B,), the most tokens of each source's targets, given ones included.
        end_token: Ends a sequence.
        alpha, form, uncounted, rules: As for advance().

    Returns:
        The last state: its sequences have ended, or there is no place left for more tokens.
    """
    sources, beams, places = state.live.shape

    def open_sources(state):
        return unfinished(state, limits, alpha, form, uncounted, rules)

    def go_on(*loop):
        return ops.any(open_sources(Beams(*loop[:5]))) & (loop[0] < places)

    def follow(tensor, parents):
        tensor = ops.reshape(tensor, (sources, beams, *tensor.shape[1:]))
        return ops.reshape(take_in_rows(tensor, parents), (sources * beams, *tensor.shape[2:]))

    def body(*loop):
        state = Beams(*loop[:5])
        logits, tensors = logits_of(state, loop[5:])
        # A source that is done stays as it is: what it returns does not depend on the others in its batch.
        active = open_sources(state)
        new, parents = advance(state, logits, end_token, alpha, form, uncounted, limits, rules)
        new = Beams(
            new.length,
            *(
                ops.where(ops.reshape(active, (-1,) + (1,) * (len(old.shape) - 1)), fresh, old)
                for old, fresh in zip(state[1:], new[1:])
            ),
        )
        if rules.early_stopping == "heuristic":
            # What looks better later, by its length alone, is not taken up again.
            live_scores = ops.where(open_sources(new)[:, None], new.live_scores, IMPOSSIBLE)
            new = new._replace(live_scores=live_scores)
        return (*new, *(follow(tensor, parents) for tensor in tensors))

    return Beams(*ops.while_loop(go_on, body, (*state, *tensors))[:5])
