"""Many tasks, one encoder: every head is trained and scored together with the others."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from zoo.config import ConfigError
from zoo.metrics.classification import label_scores, tag_scores
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.labels import class_number, read_tags
from zoo.tasks.text import TextRecipe, TextTask
from zoo.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class MultitaskRecipe(TextRecipe):
    """Everything that makes a model of several tasks: see TextRecipe.

    An example has "text" and, for each head that it says something of, a field of the head's name. Where it also has
    "domain", batching.temperature mixes the domains.
    """

    task: Literal["multitask"] = "multitask"
    source: str = "toy:numbers/intent"
    model: EncoderHeadsConfig = EncoderHeadsConfig(
        encoder=EncoderConfig(vocabulary_size=0),
        heads={"intent": HeadConfig(pooling="mean"), "slots": HeadConfig(kind="tags")},
    )
    training: TrainingConfig = TrainingConfig(steps=2000, monitor="mean", label_smoothing=0.0)


class Multitask(TextTask[MultitaskRecipe]):
    """Reads several things off a text at once.

    >>> assistant = zoo.load("intents-snips")
    >>> assistant("play some music by miles davis")
    {'intent': 'PlayMusic', 'slots': ['O', 'O', 'O', 'O', 'B-artist', 'I-artist']}
    """

    recipe_class = MultitaskRecipe

    def __init__(self, recipe: MultitaskRecipe, *args: Any, **kwargs: Any):
        for name, head in recipe.model.heads.items():
            if head.kind not in ("label", "tags"):
                raise ConfigError(f"heads.{name}.kind: {head.kind!r}; several tasks together take label and tags")
        if not recipe.model.heads:
            raise ConfigError("heads: none; name the tasks")
        self.domains: list[str] = []
        super().__init__(recipe, *args, **kwargs)

    def source_number(self, example: Mapping[str, str]) -> int:
        domain = example.get("domain", "")
        if domain not in self.domains:
            self.domains.append(domain)
        return self.domains.index(domain)

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        known = [
            {name: value for name, value in example.items() if not self._is_new_class(name, value)}
            for example in examples
        ]
        super().check_examples(known)

    def _is_new_class(self, name: str, value: str) -> bool:
        head = self.heads.get(name)
        return head is not None and head.kind == "label" and value not in head.classes

    def __call__(self, inputs: str | Sequence[str]) -> Any:  # type: ignore[override]
        """Reads texts.

        Args:
            inputs: One text, or several.

        Returns:
            For each text a dict from head to its label, or to its list of tags.

        Raises:
            ValueError: For an empty text.
        """
        if isinstance(inputs, str):
            return self([inputs])[0]
        encodings = self.encode(inputs)
        return [
            {
                name: head.classes[found[name].argmax()]
                if head.kind == "label"
                else read_tags(head, found[name], text, encoding)
                for name, head in self.heads.items()
            }
            for found, text, encoding in zip(self.run(encodings), inputs, encodings)
        ]

    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores every head on the examples that say something of it.

        Args:
            examples: Mappings with "text" and the heads' fields.

        Returns:
            "HEAD_accuracy" for labels, "HEAD_f1" for tags; "sentence_accuracy", all heads of a text right, where all
            examples have all heads; "DOMAIN_HEAD_accuracy" where examples have domains, and then "HEAD_accuracy" is
            their mean; "mean", of the heads' own. 0-100. A head that no example says something of has no score. A class
            that training never showed counts, and no guess is right then.

        Raises:
            ValueError: If no head has a score.
        """
        texts = [example["text"] for example in examples]
        encodings = self.encode(texts)
        found = self.run(encodings)
        scores: dict[str, float] = {}
        own = []
        right = np.ones(len(examples), bool)
        for name, head in self.heads.items():
            rows = [i for i, example in enumerate(examples) if name in example]
            if not rows:
                continue
            if head.kind == "label":
                guesses = np.array([found[i][name].argmax() for i in rows])
                labels = np.array([_class_or_none(head, examples[i][name]) for i in rows])
                correct = guesses == labels
                by_domain = self._by_domain(examples, rows, correct)
                scores |= {f"{domain}_{name}_accuracy": value for domain, value in by_domain.items()}
                mean = float(np.mean(list(by_domain.values()))) if by_domain else 100 * float(correct.mean())
                scores[f"{name}_accuracy"] = mean
                if (labels >= 0).all():
                    scores[f"{name}_ece"] = label_scores(np.array([found[i][name] for i in rows]), labels)["ece"]
                own.append(mean)
            else:
                tags = [read_tags(head, found[i][name], texts[i], encodings[i]) for i in rows]
                answers = [examples[i][name].split() for i in rows]
                scores[f"{name}_f1"] = tag_scores(tags, answers)["slot_f1"]
                correct = np.array([guess == answer for guess, answer in zip(tags, answers)])
                own.append(scores[f"{name}_f1"])
            right[rows] &= correct
        if not own:
            raise ValueError(f"examples: none says anything of {' or '.join(self.heads)}")
        if len(self.heads) > 1 and all(name in example for example in examples for name in self.heads):
            scores["sentence_accuracy"] = 100 * float(right.mean())
        return {**scores, "mean": float(np.mean(own))}

    @staticmethod
    def _by_domain(examples: Sequence[Mapping[str, str]], rows: Sequence[int], correct: np.ndarray) -> dict[str, float]:
        domains = [examples[i].get("domain", "") for i in rows]
        if "" in domains:
            return {}
        return {domain: 100 * float(correct[[d == domain for d in domains]].mean()) for domain in sorted(set(domains))}


def _class_or_none(head, name: str) -> int:
    """Returns a class' number, or -1 for one that the model was never shown: no guess is right then."""
    try:
        return class_number(head, name)
    except ValueError:
        return -1
