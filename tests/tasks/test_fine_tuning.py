"""Tasks over an encoder with ranks that are given out, weights that are learned, and texts that change."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import zoo
from zoo.config import ConfigError
from zoo.data.augment import EdaConfig
from zoo.data.texts import TextBatchingConfig, TextTokenizer
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.classification import Classification, ClassificationRecipe
from zoo.tasks.multitask import Multitask, MultitaskRecipe
from zoo.tasks.run import open_run
from zoo.tasks.tagging import TaggingRecipe
from zoo.training import OptimizerConfig, TrainingConfig
from zoo.training.adapt import AdaptConfig

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
OPINIONS = [
    {"text": f"the {thing} was {word}", "label": "positive" if word in ("good", "fine") else "negative"}
    for thing in ("soup", "bread", "film", "song")
    for word in ("good", "fine", "bad", "dull")
]
ORDERS = [
    {"text": text, "tags": tags, "intent": intent}
    for thing in ("soup", "bread", "film")
    for text, tags, intent in (
        (f"bring one {thing}", "O B-count B-thing", "bring"),
        (f"where is my {thing}", "O O O B-thing", "ask"),
    )
]
LABEL = HeadConfig(pooling="mean", dropout=0.0)
SMALL = EncoderConfig(vocabulary_size=0, width=16, num_heads=2, feedforward_dim=32, num_layers=1, dropout=0.0)
TRAINING = TrainingConfig(
    steps=20,
    evaluate_every=20,
    average_decay=0.5,
    monitor="accuracy",
    label_smoothing=0.0,
    jit=False,
    log_every=10,
    save_every=100,
    optimizer=OptimizerConfig(learning_rate=0.01, schedule="constant", warmup_steps=1),
)
BATCHING = TextBatchingConfig(buckets=(8, 16), batch_size=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A hub folder with a tokenizer whose words are one token each."""
    folder = Path(shutil.copytree(FIXTURES / "bert", tmp_path_factory.mktemp("hub") / "bert"))
    TextTokenizer.train([example["text"] for example in OPINIONS] * 2, 50).save(folder / "tokenizer.json")
    return str(folder)


def classifier(**changes):
    return ClassificationRecipe(
        model=EncoderHeadsConfig(SMALL, {"label": LABEL}), training=TRAINING, batching=BATCHING, **changes
    )


def interrupt_at(task, monkeypatch, step):
    """Makes a task's run stop at a step, as Ctrl-C would."""
    make = task.batches

    def batches(examples, seed=0):
        made = make(examples, seed)
        epoch, seen = made.epoch, []

        def interrupted(number, start=0):
            for batch in epoch(number, start):
                seen.append(batch)
                if len(seen) == step:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

        made.epoch = interrupted
        return made

    monkeypatch.setattr(task, "batches", batches)


def assert_going_on_changes_nothing(make, examples, tmp_path, monkeypatch):
    """Trains one task at one go and the same one in two parts; returns the tensors of the run's checkpoint."""
    make().fit(examples, examples, out=tmp_path / "whole")
    stopped = make()
    interrupt_at(stopped, monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(examples, examples, out=tmp_path / "parts")
    make().fit(examples, examples, out=tmp_path / "parts")
    expected, found = (
        safetensors.numpy.load_file(tmp_path / part / "checkpoint.safetensors") for part in ("whole", "parts")
    )
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    return expected


def test_a_run_over_a_pretrained_encoder_is_opened_again(base, tmp_path):
    asked = classifier(base=base, adapt=AdaptConfig(method="lora", rank=2))
    began = open_run(asked, OPINIONS, tmp_path)
    again = open_run(asked, OPINIONS, tmp_path)
    # The classes came from the examples and the sizes from the base: neither stands in what was asked for.
    assert again.recipe == began.recipe != asked
    np.testing.assert_array_equal(*(task.model.get_layer("embedding").weights[0] for task in (began, again)))
    with pytest.raises(ConfigError, match=r"it holds a run of another recipe \(adapt\.rank was 2, is 4\)"):
        open_run(classifier(base=base, adapt=AdaptConfig(method="lora", rank=4)), OPINIONS, tmp_path)


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_merged_says_the_same_and_needs_no_base(base, tmp_path, method):
    task = Classification.from_examples(
        classifier(base=base, adapt=AdaptConfig(method=method, rank=2, final_rank=1)), OPINIONS
    )
    texts = [example["text"] for example in OPINIONS]
    untrained = task.probabilities(texts)
    task.fit(OPINIONS, OPINIONS)
    expected = task.probabilities(texts)
    assert max(abs(now["positive"] - then["positive"]) for now, then in zip(expected, untrained)) > 0.1
    task.merged().save(tmp_path / "whole")
    saved = safetensors.numpy.load_file(tmp_path / "whole" / "weights.safetensors")
    assert not any("lora" in path for path in saved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.tasks.text.find_hub_folder", None)
        again = zoo.load(tmp_path / "whole")
    for probabilities, same in zip(again.probabilities(texts), expected):
        assert probabilities == pytest.approx(same, abs=1e-5)
    assert task.probabilities(texts) == expected


# === AdaLoRA ===


def test_an_adapter_with_ranks_given_out_survives_its_folder_and_an_interruption(base, tmp_path, monkeypatch):
    made = classifier(base=base, adapt=AdaptConfig(method="adalora", rank=3, final_rank=1))
    state = assert_going_on_changes_nothing(
        lambda: Classification.from_examples(made, OPINIONS), OPINIONS, tmp_path, monkeypatch
    )
    lambdas = np.stack([value for name, value in state.items() if name.endswith("/lora_kernel_lambda")])
    assert lambdas.shape == (4, 3)  # query and value of two blocks
    assert np.count_nonzero(lambdas) == 4
    saved = safetensors.numpy.load_file(tmp_path / "whole" / "weights.safetensors")
    assert all("/lora_kernel_" in path or path.startswith("label_") for path in saved)
    assert sum(path.endswith("lambda") for path in saved) == 4
    # What was kept is the average of the weights, in which the same ranks are gone.
    assert sum(np.count_nonzero(value) for path, value in saved.items() if path.endswith("lambda")) == 4
    once, again = zoo.load(tmp_path / "whole"), zoo.load(tmp_path / "parts")
    assert once.probabilities(["the soup was good"]) == again.probabilities(["the soup was good"])
    other = Classification.from_examples(dataclasses.replace(made, adapt=AdaptConfig(method="lora", rank=3)), OPINIONS)
    with pytest.raises(ValueError, match=r"left over .*lora_kernel_lambda"):
        zoo.checkpoints.load(tmp_path / "whole" / "weights.safetensors", other.saved_weights)


# === Learned weights of losses ===


def several(**changes):
    heads = {"intent": LABEL, "tags": HeadConfig(kind="tags", dropout=0.0)}
    training = dataclasses.replace(TRAINING, monitor="mean")
    made = MultitaskRecipe(model=EncoderHeadsConfig(SMALL, heads), training=training, batching=BATCHING, **changes)
    return Multitask.from_examples(made, ORDERS)


def test_learned_weights_of_losses_belong_to_the_run_and_not_to_the_task(tmp_path, monkeypatch):
    state = assert_going_on_changes_nothing(
        lambda: several(loss_weighting="uncertainty"), ORDERS, tmp_path, monkeypatch
    )
    assert state["log_variance:intent"] != 0 != state["log_variance:tags"]
    assert not any("log_variance" in n for n in safetensors.numpy.load_file(tmp_path / "whole/weights.safetensors"))
    assert zoo.load(tmp_path / "whole")("where is my soup")["intent"] in ("ask", "bring")


def test_the_loss_is_weighted_and_says_how():
    fixed, weighted, learned = several(), several(loss_weights={"tags": 3.0}), several(loss_weighting="uncertainty")
    batch = next(fixed.batches(ORDERS).epoch(0))
    (total, parts), (three, _), (first, said) = (
        task.loss(task.model, batch, training=False) for task in (fixed, weighted, learned)
    )
    intent, tags = float(parts["loss_intent"]), float(parts["loss_tags"])
    assert float(total) == pytest.approx(intent + tags)
    assert float(three) == pytest.approx(intent + 3 * tags)
    assert float(first) == pytest.approx(intent + tags)
    assert not any(name.startswith("loss_weight_") for name in parts)
    assert (float(said["loss_weight_intent"]), float(said["loss_weight_tags"])) == (1.0, 1.0)
    learned.weighting.log_variances["tags"].assign(1.2)
    second, said = learned.loss(learned.model, batch, training=False)
    assert float(said["loss_weight_tags"]) == pytest.approx(np.exp(-1.2))
    assert float(second) == pytest.approx(intent + np.exp(-1.2) * tags + 0.6)
    assert fixed.loss_variables == ()
    assert fixed.learning_rates is None
    with pytest.raises(ConfigError, match=r"loss_weights: .*are learned"):
        MultitaskRecipe(loss_weighting="uncertainty", loss_weights={"tags": 3.0})


# === Texts that change ===


@pytest.mark.parametrize("synonyms", [None, "words.tsv", "embeddings"])
def test_texts_change_in_training_and_nowhere_else(base, tmp_path, monkeypatch, synonyms):
    (tmp_path / "words.tsv").write_text("soup\tstew\nfilm\tmovie\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    augment = EdaConfig(share=1.0, alpha=0.3, synonyms=synonyms, similarity=-1.0)
    made = classifier(base=base, augment=augment)
    task = Classification.from_examples(made, OPINIONS)
    plain = {tuple(encoding.ids) for encoding in task.encode([example["text"] for example in OPINIONS])}

    def rows(epoch):
        found = []
        for batch in task.batches(OPINIONS, seed=4).epoch(epoch):
            tokens, asked = np.array(batch["tokens"]), np.array(batch["weights/label"])
            found += [tuple(row[row != 0].tolist()) for row, weight in zip(tokens, asked) if weight]
        return found

    assert set(rows(None)) == plain
    first = rows(0)
    assert len(first) == len(OPINIONS)
    assert set(first) - plain
    assert first == rows(0) != rows(1)


def test_synonyms_from_embeddings_do_not_depend_on_what_the_model_learned(base):
    made = classifier(base=base, augment=EdaConfig(share=1.0, synonyms="embeddings", similarity=-1.0))
    task = Classification.from_examples(made, OPINIONS)

    def tokens():
        return [np.array(batch["tokens"]).tolist() for batch in task.batches(OPINIONS).epoch(0)]

    before = tokens()
    table = task.model.get_layer("embedding").embeddings
    table.assign(np.random.default_rng(0).normal(size=table.shape))
    assert tokens() == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TaggingRecipe(augment=EdaConfig(share=0.5)),
            "augment: head 'tags' is of kind 'tags'; only label, labels and number",
        ),
        (
            lambda: classifier(augment=EdaConfig(share=0.5, synonyms="embeddings")),
            "augment.synonyms: 'embeddings' are those of a pretrained base, and there is none",
        ),
    ],
)
def test_texts_that_must_not_change_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
