"""Question answering: a question and a passage in; the words of the passage that answer it out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from zoo.data.texts import Encoding, split_pairs
from zoo.metrics.classification import answer_scores
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.text import TextRecipe, TextTask, only_head
from zoo.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringRecipe(TextRecipe):
    """Everything that makes a model that answers questions: see TextRecipe.

    Examples have "text", the question; "second", the passage; "span", the answer, empty where the passage has none; and
    "answer_start", the character of the passage where it begins.

    Args:
        window: Tokens that neighbouring windows share where a passage is too long to be read at once.
        longest_answer: Most tokens in an answer.
        no_answer: What the score of no answer must exceed the best answer's by; None always answers.
    """

    task: Literal["question_answering"] = "question_answering"
    source: str = "toy:places/questions"
    model: EncoderHeadsConfig = EncoderHeadsConfig(
        encoder=EncoderConfig(vocabulary_size=0, num_segments=2), heads={"span": HeadConfig(kind="span")}
    )
    training: TrainingConfig = TrainingConfig(steps=3000, monitor="f1", label_smoothing=0.0)
    window: int = 64
    longest_answer: int = 30
    no_answer: float | None = 0.0


class Answer(NamedTuple):
    """One answer.

    Attributes:
        text: The words of the passage; "" for no answer.
        start: Character of the passage where they begin; -1 for no answer.
        score: Log-probability of its beginning and its end, summed.
    """

    text: str
    start: int
    score: float


class QuestionAnswering(TextTask[QuestionAnsweringRecipe]):
    """Answers questions from a passage.

    >>> answer = zoo.load("runs/places")
    >>> name = answer("Who wrote it?", "The report was written by Ada in 1843.")
    """

    recipe_class = QuestionAnsweringRecipe

    def __call__(self, inputs: str | Sequence[str], seconds: str | Sequence[str], n_best: int = 1) -> Any:  # type: ignore[override]
        """Answers.

        Args:
            inputs: One question, or several.
            seconds: The passage of each.
            n_best: How many answers.

        Returns:
            For each question its best answer as text, "" for none; with n_best above 1 a list of Answers, best first.

        Raises:
            ValueError: For an empty question or passage.
        """
        if isinstance(inputs, str):
            return self([inputs], [str(seconds)], n_best)[0]
        found = self.answers(inputs, seconds, n_best)
        return [answers[0].text for answers in found] if n_best == 1 else found

    def check(self, text: str) -> None:
        """Tells whether an input, a question and a passage with a tab between, can be worked on.

        Raises:
            ValueError: If there is no tab, or one of the two is empty.
        """
        if "\t" not in text:
            raise ValueError(f"{text[:40]!r}: one text; write question TAB passage")
        super().check(text)

    def report(self, inputs: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        questions, passages = split_pairs(inputs)
        found = self.answers(questions, passages or (), n_best=3)
        return [
            {
                "output": answers[0].text,
                "probability": float(np.exp(answers[0].score)),
                "answers": [answer._asdict() for answer in answers],
            }
            for answers in found
        ]

    def answers(self, questions: Sequence[str], passages: Sequence[str], n_best: int = 1) -> list[list[Answer]]:
        """Finds the best answers of each question; a passage that is too long is read in windows."""
        name, _ = only_head(self.recipe, ("span",))
        for number, pair in enumerate(zip(questions, passages, strict=True), 1):
            try:
                self.check("\t".join(pair))
            except ValueError as error:
                raise ValueError(f"input {number}: {error}") from None
        windows = [
            self.tokenizer.windows(question, passage, self.max_length, self.recipe.window)
            for question, passage in zip(questions, passages, strict=True)
        ]
        spans = iter(self.run([window for group in windows for window in group]))
        return [
            self._best([(window, next(spans)[name]) for window in group], passage, n_best)
            for group, passage in zip(windows, passages)
        ]

    def _best(self, windows: Sequence[tuple[Encoding, np.ndarray]], passage: str, n_best: int) -> list[Answer]:
        none = min(float(scores[0].sum()) for _, scores in windows)
        found: dict[tuple[int, int], float] = {}
        for encoding, scores in windows:
            places = np.array(
                [p for p, (s, (b, e)) in enumerate(zip(encoding.segments, encoding.offsets)) if s and b < e]
            )
            if not len(places):
                continue
            starts = places[np.argsort(-scores[places, 0])[:20]]
            ends = places[np.argsort(-scores[places, 1])[:20]]
            for start in starts:
                for end in ends:
                    if 0 <= end - start < self.recipe.longest_answer:
                        span = encoding.offsets[start][0], encoding.offsets[end][1]
                        score = float(scores[start, 0] + scores[end, 1])
                        found[span] = max(score, found.get(span, -np.inf))
        best = sorted(found.items(), key=lambda item: -item[1])[:n_best]
        answers = [Answer(passage[begin:stop].strip(), begin, score) for (begin, stop), score in best]
        threshold = self.recipe.no_answer
        if not answers or (threshold is not None and none - answers[0].score > threshold):
            answers = [Answer("", -1, none), *answers][:n_best]
        return answers

    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores answers.

        Args:
            examples: Mappings with "text", "second" and "span".

        Returns:
            "em" and "f1", 0-100.
        """
        name, _ = only_head(self.recipe, ("span",))
        guesses = self([e["text"] for e in examples], [e["second"] for e in examples])
        return answer_scores(guesses, [[e[name]] if e[name] else [] for e in examples])
