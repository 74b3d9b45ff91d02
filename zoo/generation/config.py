"""How a target is found: the settings of a search or of draws."""

import dataclasses
from typing import Literal

from zoo.config import Config, ConfigError


@dataclasses.dataclass(frozen=True)
class GenerationConfig(Config):
    """How a target is found.

    Lengths count the tokens that are generated, end token included: not the start token, nor what a target was told to
    begin with.

    Args:
        beams: Width of the beam search; 1 is greedy.
        length_penalty: Exponent of the beam search's length penalty; 0 compares plain log-probabilities.
        length_penalty_form: "gnmt" divides by ((5 + length) / 6) ** length_penalty, "power" by length **
            length_penalty, as transformers does.
        early_stopping: When the beam search ends for a source: "never" before nothing better can come; "heuristic" when
            the best live beam, if it ended as long as it is, would not be among the best; "full" as soon as there are
            `beams` targets.
        late_ends: Whether all 2 * beams continuations that are looked at may end a target, or only the `beams` best.
        renormalize: Whether scores are log-probabilities among the tokens that are allowed, or among all, where a
            token that is the only one allowed costs nothing.
        max_length: Most target tokens; where None, twice the source and 10 more.
        min_length: Fewest target tokens before the end token.
        force_end: Whether the last of max_length tokens is the end token whatever the model says.
        no_repeat_ngram: No n-gram of this length occurs twice in a target; 0 allows all.
        whole_words: Whether a token that continues a word comes only where it does so in the source, too: no word is
            then put together from pieces of several. For models that read tokens and know which of them continue
            words, such as summarizers.
        bad_words: Token ids that never follow each other in a target; one alone never occurs.
        n_best: How many hypotheses are returned for a source; at most `beams`, or any number of samples.
        sample: Draws tokens instead of searching; with `temperature`, `top_k` (0: all) and `top_p`.
        temperature: Divides the logits when sampling.
        top_k: Draws among this many likeliest tokens.
        top_p: Draws among the likeliest tokens that together have this probability.
        seed: Of the draws.
    """

    beams: int = 4
    length_penalty: float = 1.0
    length_penalty_form: Literal["gnmt", "power"] = "gnmt"
    early_stopping: Literal["never", "heuristic", "full"] = "never"
    late_ends: bool = True
    renormalize: bool = True
    max_length: int | None = None
    min_length: int = 0
    force_end: bool = True
    no_repeat_ngram: int = 0
    whole_words: bool = False
    bad_words: tuple[tuple[int, ...], ...] = ()
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
        if not all(self.bad_words):
            raise ConfigError("bad_words: an empty one; each has at least one token id")
