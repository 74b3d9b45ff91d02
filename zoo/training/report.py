"""What a run says while it works: a progress bar or plain lines."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm


class Report:
    """Shows progress on standard error.

    Args:
        steps: Steps of the whole run.
        start: Steps that were done before this process.
    """

    def __init__(self, steps: int, start: int = 0):
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True)
        self._steps = steps
        self._start = start
        self._began = time.perf_counter()

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Shows numbers of `run` ("train" or "dev")."""
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
        """Ends the bar."""
        self._bar.close()

    def _time_left(self, step: int) -> str:
        done = step - self._start
        if not done:
            return ""
        left = (time.perf_counter() - self._began) / done * (self._steps - step)
        return f"left {tqdm.format_interval(left)}"
