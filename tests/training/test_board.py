"""What a run writes for TensorBoard, read back as TensorBoard reads it."""

import io

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from zoo.chips import rate_of
from zoo.config import ConfigError
from zoo.training import OptimizerConfig, loop
from zoo.training.board import Board
from zoo.training.machine import product_rate
from zoo.training.norms import group_of

# === A run ===


@pytest.fixture(scope="module")
def told(small, tmp_path_factory):
    """A run's folder, what the run said itself, and its weights before and after its first step."""
    folder, said, weights = tmp_path_factory.mktemp("board"), [], []

    class Listening(loop.Report):
        def scalars(self, run, step, values):
            said.append((run, step, dict(values)))

    scores = iter([3.0, 5.0, 4.0])
    board = Board(folder, {"training.steps": 17, "task": "toy"}, small.build())
    run = small.make_run(
        board=board,
        products=lambda batch: 1000 * batch["x"].shape[0],
        before=lambda step: weights.append([np.array(weight) for weight in run.model.trainable_weights]),
        evaluate=lambda: {"score": next(scores)},
        evaluate_every=6,
        log_every=1,
        average_decay=0.0,
    )
    loop.Report, report = Listening, loop.Report
    try:
        run.train()
    finally:
        loop.Report = report
    return folder, said, (weights[0], weights[1])


def numbers(series):
    return {step: float(value) for step, value in series}


def test_tensorboard_gets_the_numbers_that_the_run_says(told, events):
    folder, said, _ = told
    for run, steps in (("train", list(range(1, 18))), ("dev", [6, 12, 17])):
        found = {tag: numbers(series) for tag, series in events(folder / run)["scalars"].items()}
        spoken = [(step, values) for who, step, values in said if who == run]
        assert [step for step, _ in spoken] == steps
        for step, values in spoken:
            for name, value in values.items():
                assert found[name][step] == pytest.approx(value, rel=1e-6)
    train = events(folder / "train")["scalars"]
    assert {"loss", "learning_rate", "gradient_norm"} <= set(train)


def test_norms_of_layers_make_up_the_whole(told, events):
    folder, _, (before, after) = told
    found = {tag: numbers(series) for tag, series in events(folder / "train")["scalars"].items()}
    groups = ("hidden", "norm", "classes")
    for step in (1, 9, 17):
        parts = [found[f"gradient_norm/{group}"][step] for group in groups]
        assert np.linalg.norm(parts) == pytest.approx(found["gradient_norm"][step], rel=1e-5)
    for number, group in enumerate(groups):
        moved = np.concatenate([(after[i] - before[i]).ravel() for i in (2 * number, 2 * number + 1)])
        assert found[f"update_norm/{group}"][1] == pytest.approx(np.linalg.norm(moved), rel=1e-4)


def test_the_time_of_a_step_is_waiting_and_computing(told, events):
    folder, _, _ = told
    found = {tag: numbers(series) for tag, series in events(folder / "train")["scalars"].items()}
    for step, whole in found["seconds/step"].items():
        assert 0 < found["seconds/input"][step] < whole
        assert found["seconds/input"][step] + found["seconds/compute"][step] == pytest.approx(whole)
        assert 0.05 < found["memory_gb/process"][step] < 100


def test_how_much_of_the_machine_is_used(told, events):
    folder, _, _ = told
    found = {tag: numbers(series) for tag, series in events(folder / "train")["scalars"].items()}
    for step, seconds in found["seconds/step"].items():
        assert found["products/tflops"][step] * seconds == pytest.approx(8e-9, rel=1e-5)
        assert found["products/utilisation"][step] == pytest.approx(
            found["products/tflops"][step] * 1e12 / product_rate(), rel=1e-5
        )
    assert 1e9 < product_rate() < 1e15


def test_nothing_is_said_of_products_that_nobody_has_counted(small, events, tmp_path):
    small.make_run(board=Board(tmp_path), steps=2, products=lambda batch: None).train()
    assert not [name for name in events(tmp_path / "train")["scalars"] if name.startswith("products/")]


@pytest.mark.parametrize(
    ("device", "rate"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("Tesla T4", 65e12),
        ("NVIDIA L4", 121e12),
        ("TPU v5 lite", 197e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA L40S", None),
        ("TPU v5", None),
        ("cpu", None),
    ],
)
def test_published_rates_are_found_by_the_names_that_devices_have(device, rate):
    assert rate_of(device) == rate


def test_what_hparams_compares_are_the_best_scores(told, events):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    folder, _, _ = told
    assert numbers(events(folder / "best")["scalars"]["score"]) == {6: 3, 12: 5}
    metadata = EventAccumulator(str(folder / "best")).Reload().SummaryMetadata(SESSION_START_INFO_TAG)
    values = parse_session_start_info_plugin_data(metadata.plugin_data.content).hparams
    assert (values["training.steps"].number_value, values["task"].string_value) == (17, "toy")


@pytest.mark.parametrize("end", ["mine", "mine/logs"])
def test_hparams_names_a_training_by_its_folder_the_nearest_first(end, events, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    board = Board(tmp_path / end, {"steps": 17})
    board.begin(0)
    board.close()
    metadata = EventAccumulator(str(tmp_path / end / "best")).Reload().SummaryMetadata(SESSION_START_INFO_TAG)
    name = parse_session_start_info_plugin_data(metadata.plugin_data.content).group_name
    assert name.startswith(f"mine in {tmp_path.name} in {tmp_path.parent.name}")


def test_the_graph_has_the_layers(told):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _, _ = told
    nodes = EventAccumulator(str(folder / "train")).Reload().Graph().node
    for layer in ("hidden", "norm", "classes"):
        assert any(layer in node.name for node in nodes)
    names = {node.name for node in nodes}
    assert all(source.lstrip("^").split(":")[0] in names for node in nodes for source in node.input)


def test_a_run_that_goes_on_writes_no_step_twice(small, events, tmp_path):
    class Killed(Exception):
        pass

    def kill(step):
        if step == 9:
            raise Killed

    settings = {"log_every": 1, "evaluate_every": 4, "checkpoint": tmp_path / "checkpoint"}
    with pytest.raises(Killed):
        small.make_run(board=Board(tmp_path), before=kill, **settings).train()
    assert list(numbers(events(tmp_path / "train")["scalars"]["loss"])) == list(range(1, 9))
    small.make_run(board=Board(tmp_path), **settings).train()  # from the checkpoint at step 6
    for run, name, steps in (("train", "loss", range(1, 18)), ("dev", "score", (4, 8, 12, 16, 17))):
        assert [step for step, _ in events(tmp_path / run)["scalars"][name]] == list(steps)


def test_some_steps_are_profiled(small, tmp_path):
    small.make_run(board=Board(tmp_path, profile=(3, 4)), steps=5).train()
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 0


@pytest.mark.parametrize("steps", [(0, 4), (5, 4)])
def test_steps_that_cannot_be_profiled_are_refused(steps, tmp_path):
    with pytest.raises(ConfigError, match=rf"^profile: steps {steps[0]} to {steps[1]}; it takes two from 1"):
        Board(tmp_path, profile=steps)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("encoder/block_3/feedforward/hidden/kernel", "encoder/block_3"),
        ("encoder/final_norm/gamma", "encoder"),
        ("embedding/embeddings", "embedding"),
        ("label_logits/bias", "label_logits"),
        ("scale", "scale"),
    ],
)
def test_a_variable_is_of_its_block_or_of_a_part_of_the_model(path, group):
    assert group_of(path) == group


# === One thing of each kind ===


@pytest.fixture
def board(tmp_path):
    made = Board(tmp_path)
    made.begin(0)
    yield made
    made.close()


def test_a_text_is_shown_as_it_is(board, events):
    from tensorboard.plugins.text.text_plugin import text_array_to_html

    board.text("dev", 7, "samples/1", {"input": "a *b* <i> | `c`\n# d", "output": "1. x_y_z"})
    ((step, text),) = events(board.logdir / "dev")["text"]["samples/1"]
    assert step == 7
    html = text_array_to_html(text, enable_markdown=True)
    for part in ("a *b* &lt;i&gt; | `c` # d", "1. x_y_z", "<strong>input</strong>"):
        assert part in html


def test_a_figure_becomes_a_picture_of_its_size(board, events):
    board.image("dev", 3, "attention/1", Figure(figsize=(2, 1)), dpi=50)
    ((step, (width, height, png)),) = events(board.logdir / "dev")["images"]["attention/1"]
    assert (step, int(width), int(height)) == (3, 100, 50)
    assert Image.open(io.BytesIO(png)).size == (100, 50)


def test_a_histogram_counts_all_values(board, events, rng):
    values = rng.normal(size=1000)
    board.histogram("dev", 3, "hidden/kernel", values)
    ((_, buckets),) = events(board.logdir / "dev")["histograms"]["hidden/kernel"]
    assert buckets[:, 2].sum() == 1000
    assert (buckets[0, 0], buckets[-1, 1]) == pytest.approx((values.min(), values.max()))


def test_a_precision_recall_curve_is_sklearns(board, events, rng):
    from sklearn.metrics import precision_score, recall_score

    right = rng.random(200) < 0.4
    probabilities = np.clip(right * 0.3 + rng.random(200) * 0.7, 0, 1)
    board.precision_recall("dev", 3, "label/good", right, probabilities)
    ((_, curve),) = events(board.logdir / "dev")["pr_curves"]["label/good"]
    thresholds = np.linspace(0, 1, curve.shape[1])
    for i in (20, 100, 150):
        guesses = probabilities >= thresholds[i]
        assert curve[4, i] == pytest.approx(precision_score(right, guesses))
        assert curve[5, i] == pytest.approx(recall_score(right, guesses))


def test_the_projector_finds_vectors_and_labels(board, rng):
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    vectors = rng.normal(size=(3, 4))
    board.embeddings("words", vectors, [{"token": "a\tb"}, {"token": ""}, {"token": "c"}])
    board.embeddings("texts", vectors, [{"text": t, "label": t.upper()} for t in "xyz"])
    board.embeddings("words", 2 * vectors, [{"token": t} for t in "abc"])
    folder = board.logdir / "dev"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [table.tensor_name for table in config.embeddings] == ["texts", "words"]
    texts, words = config.embeddings
    np.testing.assert_allclose(np.loadtxt(folder / texts.tensor_path), vectors, rtol=1e-3)
    np.testing.assert_allclose(np.loadtxt(folder / words.tensor_path), 2 * vectors, rtol=1e-3)
    assert (folder / texts.metadata_path).read_text().splitlines() == ["text\tlabel", "x\tX", "y\tY", "z\tZ"]
    assert (folder / words.metadata_path).read_text().splitlines() == ["a", "b", "c"]


# === The step ===


def test_measuring_norms_changes_nothing(small, tmp_path):
    settings = {"steps": 3, "optimizer": OptimizerConfig(learning_rate=0.1, warmup_steps=1)}
    runs = [small.make_run(board=board, **settings) for board in (None, Board(tmp_path))]
    for run in runs:
        run.train()
    for mine, theirs in zip(*(run.model.weights for run in runs), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(theirs), rtol=1e-5)
