"""What a run says while it works: a progress bar or plain lines, and TensorBoard scalars."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm


class Report:
    """Shows progress on standard error and writes scalars for TensorBoard.

    Train and dev are two runs under `logdir`, so that equal names share a chart. Steps are optimizer steps.

    Args:
        steps: Steps of the whole run.
        start: Steps that were done before this process.
        logdir: Folder for TensorBoard; nothing is written where None.
    """

    def __init__(self, steps: int, start: int = 0, logdir: str | Path | None = None):
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True)
        self._steps = steps
        self._start = start
        self._began = time.perf_counter()
        self._writers = {}
        if logdir is not None:
            import tensorflow as tf

            self._writers = {run: tf.summary.create_file_writer(str(Path(logdir) / run)) for run in ("train", "dev")}

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers for `run` ("train" or "dev") and shows them."""
        if run in self._writers:
            import tensorflow as tf

            with self._writers[run].as_default(step=step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
            self._writers[run].flush()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._terminal:
            self._bar.n = step
            self._bar.set_postfix_str(shown) if run == "train" else self._bar.write(f"step {step}  {run}: {shown}")
            self._bar.refresh()
        else:
            self.say(f"step {step}/{self._steps}  {run}: {shown}  {self._time_left(step)}")

    def say(self, text: str) -> None:
        """Shows one line."""
        if self._terminal:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flushes everything."""
        self._bar.close()
        for writer in self._writers.values():
            writer.close()

    def _time_left(self, step: int) -> str:
        done = step - self._start
        if not done:
            return ""
        left = (time.perf_counter() - self._began) / done * (self._steps - step)
        return f"left {tqdm.format_interval(left)}"
