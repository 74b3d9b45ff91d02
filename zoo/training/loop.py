"""The training loop: batches in, checkpoints and the best weights out."""

import dataclasses
import itertools
import json
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.checkpoints import CheckpointError, by_path, load, save
from zoo.training.board import BEST, DEV, TRAIN, Board
from zoo.training.config import TrainingConfig
from zoo.training.distribution import Distribution
from zoo.training.norms import GroupNorms
from zoo.training.optimizers import make_optimizer
from zoo.training.ranks import RankAllocator
from zoo.training.report import Report
from zoo.training.step import LossFunction, MovingAverage, make_train_step
from zoo.training.window import TrainingError, Window


@dataclasses.dataclass
class Position:
    """Where a run stands: enough, with the variables, to go on as if nothing had happened."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    worse: int = 0
    seconds: float = 0.0


class Run:
    """One training run, which can be stopped at any moment and gone on with.

    Args:
        model: What to train.
        loss: The loss of a batch: see make_train_step.
        batches: Has epoch(number, start) -> batches, the same ones for the same number.
        config: The run's settings.
        evaluate: Returns dev metrics of the model as it stands; called with the averaged weights in place.
        keep_best: Called, with the averaged weights in place, whenever the monitored metric is the best so far.
        learning_rates, loss_variables, ranks: See make_train_step.
        products: Counts the operations of matrix products in a step over a batch; None where nobody has counted them.
        checkpoint: File of the run's own state; nothing is saved where None.
        board: Where the run writes for TensorBoard; it writes nothing where None.
        distribution: The devices and machines that the run works on; one device where None. `evaluate` is called, and
            files are written, by the chief alone.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: LossFunction,
        batches,
        config: TrainingConfig,
        *,
        evaluate: Callable[[], Mapping[str, float]],
        keep_best: Callable[[], None],
        learning_rates: Mapping[str, float] | None = None,
        loss_variables: Sequence[keras.Variable] = (),
        ranks: RankAllocator | None = None,
        products: Callable[[Mapping[str, Any]], int | None] | None = None,
        checkpoint: str | Path | None = None,
        board: Board | None = None,
        distribution: Distribution | None = None,
    ):
        self.model = model
        self.batches = batches
        self.config = config
        self.evaluate = evaluate
        self.keep_best = keep_best
        self.distribution = distribution or Distribution()
        writes = self.distribution.is_chief
        self.checkpoint = Path(checkpoint) if checkpoint is not None and writes else None
        self.products = products
        self.board = board
        self.position = Position()
        self.optimizer = make_optimizer(config.optimizer, config.steps, config.precision)
        self.loss_variables = loss_variables
        self.ranks = ranks
        self.average = MovingAverage(model, config.average_decay) if config.average_decay else None
        self.norms = None if board is None else GroupNorms([*model.trainable_variables, *loss_variables])
        self.step = make_train_step(
            model,
            self.optimizer,
            loss,
            clip_norm=config.optimizer.clip_norm,
            average=self.average,
            learning_rates=learning_rates,
            loss_variables=loss_variables,
            ranks=ranks,
            jit=config.jit,
            matmul=config.matmul,
            precision=config.precision,
            accumulate=config.accumulate,
            remat=config.remat,
            norms=self.norms,
            distribution=self.distribution,
        )

    def train(self) -> Position:
        """Trains to the last step, an early stop, or an interruption.

        Returns:
            Where the run stands.

        Raises:
            TrainingError: If the loss is not a number, or another worker is gone; the last checkpoint was taken before.
            KeyboardInterrupt: If the run was interrupted, after a checkpoint was taken.
        """
        try:
            return self._train()
        except self.distribution.lost as error:
            raise TrainingError(
                f"a worker of this run is gone after step {self.position.step}, and no other can go on without it: the "
                f"same command, given to all {self.distribution.workers} workers again, goes on from the last "
                f"checkpoint ({_cause(error)})"
            ) from None
        finally:
            self.distribution.end()

    def _train(self) -> Position:
        if self.checkpoint is not None and self.checkpoint.exists():
            self.restore(self.checkpoint)
        if self.distribution.workers > 1:
            self._begin_like_the_chief()
        report = Report(self.config.steps, self.position.step)
        if self.board is not None:
            self.board.begin(self.position.step)
        if self.position.step:
            report.say(f"goes on from step {self.position.step}")
        position, config = self.position, self.config
        window = Window(position.step)
        try:
            with _interruptions() as interrupted:
                for batch in window.waited_for(self._remaining_batches()):
                    if position.step >= config.steps or self._out_of_patience:
                        break
                    began = time.perf_counter()
                    progress = np.array(position.step / config.steps, np.float32)
                    if self.board is not None:
                        self.board.before_step(position.step + 1)
                    window.add(self.step({**batch, "progress": progress}))
                    if self.products is not None:
                        window.products.append(self.products(batch))
                    position.step += 1
                    position.batch += 1
                    if self.board is not None:
                        self.board.after_step(position.step, window.metrics[-1])
                    if self._due(config.log_every):
                        self._say(report, TRAIN, *window.close(self.norms, self.distribution.devices))
                    position.seconds += time.perf_counter() - began  # steps may be waited for in the report alone
                    if self._due(config.evaluate_every):
                        window.check()
                        with window.paused():
                            self._evaluate(report)
                    stopping = self._all_told(interrupted)
                    if stopping or self._due(config.save_every):
                        window.check()
                        with window.paused():
                            self.save()
                    if stopping:
                        report.say(f"interrupted at step {position.step}; the same command goes on from there")
                        raise KeyboardInterrupt
                    if self._out_of_patience:
                        report.say(
                            f"stopped at step {position.step}: {config.patience} evaluations without a better one"
                        )
                        self.save()
                        break
        finally:
            report.close()
            if self.board is not None:
                self.board.close()
        if self.distribution.workers > 1:
            self.distribution.any(False)  # the chief may still be writing, and to it who leaves is lost
        return position

    def _say(self, report: Report, run: str, values: Mapping[str, float], more: Mapping[str, float]) -> None:
        """Shows numbers, and writes them with more that would fill a terminal."""
        report.scalars(run, self.position.step, values)
        if self.board is not None:
            self.board.scalars(run, self.position.step, {**values, **more})

    def _due(self, every: int) -> bool:
        return self.position.step % every == 0 or self.position.step == self.config.steps

    def _all_told(self, interrupted: Callable[[], bool]) -> bool:
        """Tells whether the run is to stop; several workers ask each other only where a report is due."""
        if self.distribution.workers == 1:
            return interrupted()
        return self._due(self.config.log_every) and self.distribution.any(interrupted())

    def _begin_like_the_chief(self) -> None:
        """Takes over where the chief stands: only it needs to have the checkpoint."""
        self.distribution.begin(list(self._state.values()))
        best = self.position.best
        numbers = {**vars(self.position), "best": math.nan if best is None else best}
        told = dict(zip(numbers, self.distribution.from_chief(*numbers.values()), strict=True))
        for name, number in told.items():
            number = number if name in ("best", "seconds") else int(number)
            setattr(self.position, name, None if math.isnan(number) else number)

    @property
    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.position.worse

    def _remaining_batches(self) -> Iterator[dict]:
        for epoch in itertools.count(self.position.epoch):
            yield from self.batches.epoch(epoch, self.position.batch)
            self.position.epoch, self.position.batch = epoch + 1, 0

    def _evaluate(self, report: Report) -> None:
        """Measures the averaged weights on the dev examples and keeps them if they are the best so far."""
        position, monitor = self.position, self.config.monitor
        with averaged(self.average), self.distribution.at_home():
            score = math.nan
            if self.distribution.is_chief:
                metrics = dict(self.evaluate())
                self._say(report, DEV, metrics, {})
                if monitor not in metrics:
                    raise TrainingError(f"monitor: no dev metric {monitor!r}; there is {', '.join(sorted(metrics))}")
                score = -metrics[monitor] if monitor == "loss" else metrics[monitor]
            (score,) = self.distribution.from_chief(score)
            if position.best is None or score > position.best:
                position.best, position.worse = score, 0
                self.keep_best()
                if self.board is not None:
                    self.board.scalars(BEST, position.step, metrics)
            else:
                position.worse += 1

    @property
    def _state(self) -> dict[str, keras.Variable]:
        followers = [follower for follower in (self.average, self.ranks) if follower is not None]
        followed = [variable for follower in followers for variable in follower.variables]
        state = by_path([*self.model.weights, *self.loss_variables, *followed])
        # Adafactor calls all of its rows and columns by the name of what they belong to.
        named: Counter[str] = Counter()
        for variable in self.optimizer.variables:
            named[variable.path] += 1
            number = named[variable.path]
            state[variable.path if number == 1 else f"{variable.path}#{number}"] = variable
        # Keras numbers seed generators by their order in the process, so they are named by their order in the model.
        weights = set(map(id, self.model.weights))
        seeds = [variable for variable in self.model.variables if id(variable) not in weights]
        return state | {f"seeds/{i}": variable for i, variable in enumerate(seeds)}

    def save(self) -> None:
        """Writes the run's state, whole or not at all."""
        if self.checkpoint is not None:
            save(self.checkpoint, self._state, position=json.dumps(dataclasses.asdict(self.position)))

    def restore(self, checkpoint: Path) -> None:
        """Goes back to where a checkpoint was taken.

        Raises:
            TrainingError: If it belongs to another model or optimizer.
        """
        try:
            metadata = load(checkpoint, self._state)
        except CheckpointError as error:
            raise TrainingError(f"cannot go on with this run: {error}") from None
        vars(self.position).update(json.loads(metadata["position"]))


def _cause(error: Exception) -> str:
    """Returns the line of TensorFlow's error that says what happened, without where in the graph."""
    lines = [line.rpartition("}} ")[2].strip() for line in str(error).splitlines()]
    return next((line for line in lines if "aborted by" in line), lines[0] if lines else type(error).__name__)


@contextmanager
def averaged(average: MovingAverage | None) -> Iterator[None]:
    """Puts the averaged weights in place of the trained ones for the length of the block."""
    if average is None:
        yield
        return
    average.swap()
    try:
        yield
    finally:
        average.swap()


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a question that the loop asks between two steps; a second one kills."""
    received = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def receive(number, frame):
        received.append(number)
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    previous = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum in previous:
        signal.signal(signum, receive)
    try:
        yield lambda: bool(received)
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
