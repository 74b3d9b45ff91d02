"""Task: the interface that every task implements, and the folder that a trained one lives in."""

import abc
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import keras
import numpy as np

from zoo.checkpoints import by_path, load, save
from zoo.config import Config, ConfigError
from zoo.data import hold_out
from zoo.files import replacing
from zoo.generation.compile import Program
from zoo.metrics.classification import Guesses
from zoo.pictures.picture import Picture
from zoo.presets import CARD, read_card
from zoo.tasks.showing import Showing, check, flat, show
from zoo.training import Distribution, Position, Run, TrainingConfig, open_strategy
from zoo.training.board import Board
from zoo.training.ranks import RankAllocator

WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.safetensors"


@dataclasses.dataclass(frozen=True)
class TaskRecipe(Config):
    """What every task's recipe holds; each task adds its own fields.

    Args:
        task: The task's name.
        source: The training data, a SOURCE.
        model: The model's sizes.
        training: How the model is trained.
    """

    task: str
    source: str
    model: Any
    training: TrainingConfig


Recipe = TypeVar("Recipe", bound=TaskRecipe)


class Task(abc.ABC, Generic[Recipe]):
    """A model with everything around it that turns a user's input into a user's output.

    Args:
        recipe: What the task was, or will be, made from.
        card: What preset.json says besides the recipe: scores, run time, licence, command.

    Attributes:
        model: The Keras model.
    """

    recipe_class: ClassVar[type[TaskRecipe]]
    # What a model card compares with: see evaluate_baseline().
    baselines: ClassVar[Sequence[str]] = ()
    model: keras.Model

    def __init__(self, recipe: Recipe, card: Mapping[str, Any] | None = None):
        self.recipe = recipe
        self.card = dict(card or {})

    @classmethod
    @abc.abstractmethod
    def from_examples(cls, recipe: Recipe, examples: Sequence[Mapping[str, str]]) -> Self:
        """Makes an untrained task: learns its vocabulary from training examples and builds its model."""

    @abc.abstractmethod
    def __call__(self, inputs: str | Sequence[str], **settings: Any) -> Any:
        """Turns inputs into outputs: one for a single text, a list for a list."""

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        """Turns texts such as "beams=1" into what calls and evaluate() take.

        Raises:
            ConfigError: For an unknown setting, or where a task has none.
        """
        if assignments:
            raise ConfigError(f"--set {assignments[0]!r}: {self.recipe.task} has no settings")
        return {}

    def report(self, inputs: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        """Turns inputs into outputs with what else is known of them.

        Returns:
            For each input a dict that JSON can hold: "output", what a call returns, and whatever the task adds.
        """
        return [{"output": output} for output in self(inputs, **settings)]

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        """The settings that a model card scores, by name; the task's own stand last."""
        return {"": {}}

    @abc.abstractmethod
    def samples(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> list[dict[str, str]]:
        """Runs labelled examples for a reader: "input", "output" and "reference", as text."""

    @property
    def demo(self) -> list[str]:
        """Inputs that show what a preset does."""
        return self.card["demo"]

    @abc.abstractmethod
    def check(self, text: str) -> None:
        """Tells whether an input can be worked on; raises ValueError where it cannot."""

    @abc.abstractmethod
    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores the task on labelled examples."""

    @classmethod
    def evaluate_baseline(cls, name: str, examples: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Scores on labelled examples what needs no model.

        Args:
            name: The baseline's name: see `baselines`.
            examples: Labelled examples.

        Returns:
            As evaluate().

        Raises:
            ValueError: If the task has no such baseline.
        """
        raise ConfigError(f"baseline {name!r}: this task has none")

    # === Training ===

    @abc.abstractmethod
    def batches(self, examples: Sequence[Mapping[str, str]], seed: int = 0) -> Any:
        """Lays examples out in batches for the training loop: see Run.

        Raises:
            ValueError: If one cannot be used; it says which.
        """

    @abc.abstractmethod
    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> tuple[Any, dict[str, Any]]:
        """Computes a batch's loss, and what is reported beside it: see make_train_step()."""

    @abc.abstractmethod
    def batch_outline(self, rows: int) -> dict[str, keras.KerasTensor]:
        """Returns shapes and types of a training batch of `rows` rows, the longest ones that there are."""

    def products(self, batch: Mapping[str, Any]) -> int | None:
        """Counts the operations of matrix products in a training step, by hand; None where nobody has counted them.

        They are those of the forward pass over all places, padding too, and as many again for each gradient that is
        needed: of what goes in, and of weights that learn. What is computed twice to save memory counts once.
        """
        return None

    @abc.abstractmethod
    def programs(self, rows: int) -> dict[str, Program]:
        """Returns the programs that work on inputs, by name, with arguments for `rows` of the longest ones."""

    def describe(self, examples: Sequence[Mapping[str, str]]) -> list[str]:
        """Says in a few lines what is worth knowing of training examples before a run."""
        return []

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        """Tells whether examples can be scored, which would else show hours into a run.

        Raises:
            ValueError: If one cannot; it says which.
        """
        self.batches(examples)

    def score_while_training(self, examples: Sequence[Mapping[str, str]]) -> dict[str, float]:
        """Scores dev examples in the course of a run; evaluate() where a task has no quicker way."""
        return self.evaluate(examples)

    # What TensorBoard shows of a run: see showing.py.

    def samples_while_training(self, examples: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """Runs dev examples in the course of a run; samples() where a task has no quicker way."""
        return self.samples(examples)

    def picture(self, example: Mapping[str, Any], output: str = "") -> Picture | None:
        """Draws where the model looks; None where there is nothing to draw.

        Args:
            example: A labelled example.
            output: What the model made of it, for tasks that are drawn by it; the label where empty.
        """
        return None

    def guesses(self, examples: Sequence[Mapping[str, str]]) -> Mapping[str, Guesses]:
        """Returns what each classifying head thinks of labelled examples, by the head's name."""
        return {}

    def embeddings(
        self, examples: Sequence[Mapping[str, str]]
    ) -> Mapping[str, tuple[np.ndarray, list[dict[str, str]]]]:
        """Returns tables of vectors, (rows, D), with what is known of each row, by the table's name."""
        return {}

    @property
    def trained_model(self) -> keras.Model:
        """What a run trains, where that is more than the model."""
        return self.model

    @property
    def learning_rates(self) -> dict[str, float] | None:
        """Each variable's share of the learning rate, by path; None for one rate."""
        return None

    @property
    def loss_variables(self) -> Sequence[keras.Variable]:
        """The loss' own variables, which are trained beside the model's."""
        return ()

    def rank_allocator(self, steps: int) -> RankAllocator | None:
        """Makes what gives ranks out over a run of `steps` steps; None where there are none to give."""
        return None

    def make_run(self, config: TrainingConfig, batches: Any, **others: Any) -> Run:
        """Makes a run that trains the task; see Run for what it takes."""
        return Run(
            self.trained_model,
            self.loss,
            batches,
            config,
            learning_rates=self.learning_rates,
            loss_variables=self.loss_variables,
            ranks=self.rank_allocator(config.steps),
            products=self.products,
            **others,
        )

    def fit(
        self,
        train: Sequence[Mapping[str, str]],
        dev: Sequence[Mapping[str, str]] | None = None,
        *,
        epochs: int | None = None,
        out: str | Path | None = None,
        logdir: str | Path | None = None,
        training: TrainingConfig | None = None,
        showing: Showing = Showing(),
        profile: tuple[int, int] | None = None,
        strategy: str | Distribution | None = None,
    ) -> Position:
        """Trains on examples; the model ends with the weights that did best on the dev examples.

        Args:
            train: Labelled examples.
            dev: The same, for choosing the best weights; where None, a share of `train` is held out.
            epochs: Passes over the training examples, each followed by an evaluation; the settings' steps where None.
            out: Folder for checkpoints and the best weights; a run that was stopped goes on from there.
            logdir: Folder for TensorBoard.
            training: Settings other than the recipe's.
            showing: What TensorBoard shows besides numbers.
            profile: The first and the last of some steps that are profiled, for TensorBoard too.
            strategy: The devices and machines to train on, as `zoo train --strategy` takes them, or what
                zoo.training.open_strategy() made of that; one device where None. Of several workers only the first one
                writes, and its model alone is certain to end with the best weights.

        Returns:
            Where the run ended.

        Raises:
            ValueError: If an example cannot be used; it says which.
        """
        distribution = strategy if isinstance(strategy, Distribution) else open_strategy(strategy)
        out = out if distribution.is_chief else None
        config = training or self.recipe.training
        if dev is None:
            train, dev = hold_out(train, seed=config.seed)
        try:
            self.check_examples(dev)
        except ValueError as error:
            raise ValueError(f"dev examples: {error}") from None
        batches = self.batches(train, config.seed)
        if epochs is not None:
            config = config.for_epochs(epochs, len(batches.plan(0)))
        board = None
        if logdir is not None and distribution.is_chief:
            check(self, dev, showing)
            recipe = dataclasses.replace(self.recipe, training=config)
            board = Board(logdir, flat(recipe.to_dict()), self.trained_model, profile)
        elif profile is not None and logdir is None:
            raise ConfigError(f"profile: {profile}, and no logdir to write it to")
        best: list[np.ndarray] = []

        def evaluate():
            scores = self.score_while_training(dev)
            if board is not None:
                show(self, board, run.position.step, dev, showing)
            return scores

        def keep_best():
            best[:] = [keras.ops.convert_to_numpy(weight) for weight in self.trained_model.weights]
            if out is not None:
                self.save(out)

        run = self.make_run(
            config,
            batches,
            evaluate=evaluate,
            keep_best=keep_best,
            checkpoint=None if out is None else Path(out) / CHECKPOINT,
            board=board,
            distribution=distribution,
        )
        position = run.train()
        if best:
            for weight, value in zip(self.trained_model.weights, best, strict=True):
                weight.assign(value)
        elif out is not None and position.best is not None:  # the best were found before this run was gone on with
            load(Path(out) / WEIGHTS, self.saved_weights)
        return position

    # === Folders ===

    @property
    def saved_weights(self) -> dict[str, keras.Variable]:
        """The weights that the task's folder holds, by path."""
        return by_path(self.model.weights)

    @abc.abstractmethod
    def save_vocabulary(self, folder: Path) -> None:
        """Writes what the task needs besides recipe and weights."""

    @classmethod
    @abc.abstractmethod
    def from_vocabulary(cls, recipe: Recipe, folder: Path, card: Mapping[str, Any]) -> Self:
        """Makes a task with untrained weights from what save_vocabulary wrote."""

    def save(self, folder: str | Path, dtype: str | None = None) -> None:
        """Writes the task to a folder that load() and `zoo predict` take.

        Args:
            folder: Made where it does not exist.
            dtype: "float16" halves the file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.save_vocabulary(folder)
        save(folder / WEIGHTS, self.saved_weights, dtype=dtype)
        with replacing(folder / CARD) as temporary:
            text = json.dumps({"recipe": self.recipe.to_dict(), **self.card}, indent=2, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads a folder that save() wrote."""
        folder = Path(folder)
        card = read_card(folder)
        task = cls.from_vocabulary(cast(Recipe, cls.recipe_class.from_dict(card.pop("recipe"))), folder, card)
        load(folder / WEIGHTS, task.saved_weights)
        return task
