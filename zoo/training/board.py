"""What TensorBoard shows of a run: event files, and the projector's tables beside them."""

import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.files import replacing
from zoo.training.profile import Profiler

# The runs of one training: equal names in the first two share a chart, and the last is what HParams compares.
TRAIN, DEV, BEST = "train", "dev", "best"

_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]()#+-.!|~>"})


class Board:
    """Writes what TensorBoard shows, by TensorBoard's own file writer: no TensorFlow runs for it.

    Args:
        logdir: Folder of the training; each run is a folder in it.
        hyperparameters: What the training was made with, for the HParams tab.
        model: A functional model, for the Graphs tab.
        profile: The first and the last of some steps, for the Profile tab.

    Raises:
        ConfigError: If these steps are none.
    """

    def __init__(
        self,
        logdir: str | Path,
        hyperparameters: Mapping[str, bool | int | float | str] | None = None,
        model: keras.Model | None = None,
        profile: tuple[int, int] | None = None,
    ):
        self.logdir = Path(logdir)
        self.hyperparameters = dict(hyperparameters or {})
        self.model = model
        self.profiler = None if profile is None else Profiler(logdir, profile)
        self._writers: dict[str, Any] = {}

    def begin(self, step: int) -> None:
        """Opens the files of a training that stands at a step; what was written of later steps no longer counts."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        for run in (TRAIN, DEV, BEST):
            self._writers[run] = EventFileWriter(str(self.logdir / run))
            # TensorBoard drops whatever came before this with the same step or a later one.
            start = SessionLog(status=SessionLog.START)
            self._writers[run].add_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
        if self.hyperparameters:
            self._say_hyperparameters()
        if self.model is not None and step == 0:
            self._draw(self.model)

    def close(self) -> None:
        """Writes everything out."""
        if self.profiler is not None:
            self.profiler.close()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def before_step(self, step: int) -> None:
        """Is told of a step that begins."""
        if self.profiler is not None:
            self.profiler.before(step)

    def after_step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Is told of a step that was made, and its numbers."""
        if self.profiler is not None:
            self.profiler.after(step, metrics)

    # === What changes from step to step ===

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers; in names, a slash is between a group of charts and a chart."""
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._write(run, step, (scalar_pb(name, float(value)) for name, value in values.items()))

    def text(self, run: str, step: int, name: str, rows: Mapping[str, str]) -> None:
        """Writes a paragraph for each text; in a table long texts would break the words beside them."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        paragraphs = "\n\n".join(f"**{title}**: {_plain(text)}" for title, text in rows.items())
        self._write(run, step, [text_pb(name, paragraphs)])

    def image(self, run: str, step: int, name: str, figure: Any, dpi: int = 90) -> None:
        """Writes a matplotlib figure."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.image.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi)
        width, height = (str(round(side * dpi)) for side in figure.get_size_inches())
        tensor = make_tensor_proto([width.encode(), height.encode(), file.getvalue()])
        metadata = create_summary_metadata(display_name=None, description=None)
        self._write(run, step, [Summary(value=[Summary.Value(tag=name, tensor=tensor, metadata=metadata)])])

    def histogram(self, run: str, step: int, name: str, values: np.ndarray) -> None:
        """Writes how values are spread."""
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb

        self._write(run, step, [histogram_pb(name, values)])

    def precision_recall(self, run: str, step: int, name: str, right: np.ndarray, probabilities: np.ndarray) -> None:
        """Writes a precision-recall curve.

        Args:
            run, step, name: Where it belongs.
            right: Boolean (examples,): which are of the class.
            probabilities: (examples,), from 0 to 1.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.pr_curve.summary import pb

        curve = pb(name, labels=right, predictions=np.asarray(probabilities, np.float64))
        summary = Summary.FromString(curve.SerializeToString())
        summary.value[0].tag = name
        self._write(run, step, [summary])

    def embeddings(self, name: str, vectors: np.ndarray, labels: Sequence[Mapping[str, str]]) -> None:
        """Writes vectors for the projector, in place of those of the same name.

        Args:
            name: Of the table.
            vectors: (rows, D).
            labels: For each row what is known of it; all have the same keys.
        """
        from tensorboard.plugins import projector

        folder = self.logdir / DEV
        with replacing(folder / f"{name}.vectors.tsv") as temporary:
            np.savetxt(temporary, vectors, fmt="%.4g", delimiter="\t")
        columns = list(labels[0])
        # The projector takes a heading only where there are several columns.
        lines = [columns] * (len(columns) > 1) + [[_cell(row[column]) for column in columns] for row in labels]
        with replacing(folder / f"{name}.labels.tsv") as temporary:
            temporary.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
        config = projector.ProjectorConfig()
        tables = sorted({file.name.removesuffix(".vectors.tsv") for file in folder.glob("*.vectors.tsv")})
        for table in tables:
            config.embeddings.add(
                tensor_name=table, tensor_path=f"{table}.vectors.tsv", metadata_path=f"{table}.labels.tsv"
            )
        projector.visualize_embeddings(str(folder), config)

    def _say_hyperparameters(self) -> None:
        """Says what the training was made with; the scores beside it in HParams are the scalars of the run "best"."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        # Trainings with the same values are compared too, so they are told apart by their folders, the nearest first.
        folder = self.logdir.parent if self.logdir.name == "logs" else self.logdir
        trial = " in ".join(part for part in reversed(folder.absolute().parts) if part != folder.anchor)
        self._write(BEST, 0, [hparams_pb(self.hyperparameters, trial_id=trial)])

    def _draw(self, model: keras.Model) -> None:
        """Draws a model's operations; on JAX, which keeps no graph of them, its layers."""
        from tensorboard.compat.proto.event_pb2 import Event

        graph = (_operations if keras.backend.backend() == "tensorflow" else _layers)(model)
        self._writers[TRAIN].add_event(Event(wall_time=time.time(), graph_def=graph.SerializeToString()))

    def _write(self, run: str, step: int, summaries: Iterable[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        for summary in summaries:
            self._writers[run].add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writers[run].flush()


def _plain(text: str) -> str:
    """Writes a text so that TensorBoard's Markdown shows it as it is."""
    return escape(" ".join(text.split()), quote=False).translate(_MARKDOWN)


def _cell(text: str) -> str:
    return " ".join(text.split()) or "-"


def _operations(model: keras.Model) -> Any:
    import tensorflow as tf

    inputs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), model._inputs_struct)
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(inputs).graph.as_graph_def()
    # What is within the model's own scope is to be seen at once.
    scope = re.compile(rf"^(\^?){model.name}(_\d+)?/")
    for node in graph.node:
        node.name = scope.sub(r"\1", node.name)
        node.input[:] = [scope.sub(r"\1", name) for name in node.input]
    return graph


def _layers(model: keras.Model) -> Any:
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef()
    for layer in model.operations:
        before = [node.operation.name for inbound in layer._inbound_nodes for node in inbound.parent_nodes]
        named = [other.name for other in model.operations if other.name in before]
        graph.node.add(name=layer.name, op=type(layer).__name__, input=named)
    return graph
