"""Training texts that are another in every pass: from a recipe's settings to what batches call."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zoo.checkpoints.hub import open_hub_folder
from zoo.config import ConfigError
from zoo.data.augment import Eda, EdaConfig, Synonyms, nearest_words, read_synonyms, token_words
from zoo.data.texts import Encoding, TextTokenizer
from zoo.models.encoder import HeadConfig, encoder
from zoo.presets.hub import find_hub_folder

EMBEDDINGS = "embeddings"
FIELDS = ("text", "second")


def check_augmentation(config: EdaConfig, base: str | None, heads: Mapping[str, HeadConfig]) -> None:
    """Tells whether texts can be changed and keep their labels.

    Raises:
        ConfigError: If a head learns from single words, or there are no embeddings to find synonyms in.
    """
    if not config.share:
        return
    for name, head in heads.items():
        if head.kind not in ("label", "labels", "number"):
            raise ConfigError(
                f"augment: head {name!r} is of kind {head.kind!r}; only label, labels and number, which are said of a "
                "whole text, stay true when words change"
            )
    if config.synonyms == EMBEDDINGS and base is None:
        raise ConfigError(
            f"augment.synonyms: {EMBEDDINGS!r} are those of a pretrained base, and there is none; "
            "give a file of synonyms, or none"
        )


def augmentation(
    config: EdaConfig,
    base: str | None,
    examples: Sequence[Mapping[str, str]],
    tokenizer: TextTokenizer,
    max_length: int,
) -> Callable[[int, np.random.Generator], Encoding] | None:
    """Makes what changes training texts: see TextBatches.

    Args:
        config: How they are changed.
        base: The pretrained encoder, for its embeddings.
        examples: The training examples.
        tokenizer: Reads texts.
        max_length: Most tokens in one.

    Returns:
        A function from an example's number and a random generator to the changed text's tokens; None for no changes.

    Raises:
        SourceError: If the file of synonyms cannot be used.
    """
    if not config.share:
        return None
    eda = Eda(config, _synonyms(config, base, examples, tokenizer))
    # Batches are made in a thread of their own, while the task's tokenizer may be at work.
    own = tokenizer.copy()

    def augmented(number: int, random: np.random.Generator) -> Encoding:
        text, *second = (eda(examples[number][field], random) for field in FIELDS if field in examples[number])
        return own.encode([text], second or None, max_length)[0]

    return augmented


def _synonyms(
    config: EdaConfig, base: str | None, examples: Sequence[Mapping[str, str]], tokenizer: TextTokenizer
) -> Synonyms | None:
    if config.synonyms is None:
        return None
    if config.synonyms != EMBEDDINGS or base is None:
        return read_synonyms(config.synonyms)
    texts = (example[field] for example in examples for field in FIELDS if field in example)
    return nearest_words(token_words(texts, tokenizer), _embeddings(base), config.neighbours, config.similarity)


def _embeddings(base: str) -> np.ndarray:
    """Reads a pretrained encoder's table anew: a run that goes on has other weights in its model than at the start."""
    hub = open_hub_folder(find_hub_folder(base))
    model = encoder(hub.config)
    hub.fill(model)
    return np.array(model.get_layer("embedding").embeddings)
