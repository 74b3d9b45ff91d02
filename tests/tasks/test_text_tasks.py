"""Every task over an encoder learns a small problem, scores itself, and survives its folder."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.config import ConfigError
from zoo.data.texts import Encoding, TextBatchingConfig, TextTokenizer
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.classification import Classification, ClassificationRecipe
from zoo.tasks.embedding import Embedding
from zoo.tasks.labels import find_classes, read_label, word_starts
from zoo.tasks.multitask import Multitask, MultitaskRecipe
from zoo.tasks.question_answering import QuestionAnswering, QuestionAnsweringRecipe
from zoo.tasks.showing import Showing
from zoo.tasks.tagging import Tagging, TaggingRecipe
from zoo.training import OptimizerConfig, TrainingConfig
from zoo.training.adapt import AdaptConfig

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
THINGS = ("soup", "bread", "film", "song", "book", "room")
GOOD, BAD = ("good", "fine", "lovely"), ("bad", "awful", "dull")

OPINIONS = [
    {"text": f"the {thing} was {word}", "label": "positive" if word in GOOD else "negative"}
    for thing in THINGS
    for word in (*GOOD, *BAD)
]
ORDERS = [
    {"text": f"bring {count} {thing} now", "tags": "O B-count B-thing O", "intent": "bring"}
    for thing in THINGS
    for count in ("one", "two", "three")
] + [
    {"text": f"where is my {thing}", "tags": "O O O B-thing", "intent": "ask"}
    for thing in THINGS
]  # fmt: skip
PASSAGES = [
    {"text": "who ate", "second": f"{name} ate the {thing}", "span": name, "answer_start": "0"}
    for name in ("anna", "bert", "carla")
    for thing in THINGS
]
SMALL = EncoderConfig(
    vocabulary_size=0, width=16, num_heads=2, feedforward_dim=32, num_layers=1, dropout=0.0, num_segments=2
)
TRAINING = TrainingConfig(
    steps=60,
    evaluate_every=30,
    average_decay=0.0,
    label_smoothing=0.0,
    jit=False,
    log_every=30,
    save_every=30,
    optimizer=OptimizerConfig(learning_rate=0.02, schedule="constant", warmup_steps=5),
)
BATCHING = TextBatchingConfig(buckets=(8, 16), batch_size=8)


def recipe(kind, heads, monitor, **changes):
    return kind(
        model=EncoderHeadsConfig(SMALL, heads),
        training=dataclasses.replace(TRAINING, monitor=monitor),
        batching=BATCHING,
        **changes,
    )


def trained(task, examples, tmp_path):
    task.fit(examples, examples, out=tmp_path)
    return task


# === Classification ===


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    made = recipe(ClassificationRecipe, {"label": HeadConfig(pooling="mean", dropout=0.0)}, "accuracy")
    folder = tmp_path_factory.mktemp("classifier")
    task = Classification.from_examples(made, OPINIONS)
    task.fit(OPINIONS, OPINIONS, out=folder, logdir=folder / "logs", showing=Showing(samples=3, histograms=True))
    return task, folder


def test_tensorboard_shows_what_a_classifier_takes_for_what(classifier, events):
    task, folder = classifier
    shown = events(folder / "logs/dev")
    assert set(shown["text"]) == {"samples/1", "samples/2", "samples/3"}
    _, text = shown["text"]["samples/1"][-1]
    assert text.item().decode().endswith(f"\n\n**reference**: {OPINIONS[0]['label']}")
    assert set(shown["images"]) == {"attention/1", "attention/2", "confusion/label"}
    assert [step for step, _ in shown["images"]["confusion/label"]] == [30, 60]
    for label in ("positive", "negative"):
        _, curve = shown["pr_curves"][f"label/{label}"][-1]
        assert curve[0, 0] == sum(example["label"] == label for example in OPINIONS)  # at threshold 0 all are found
    weights = {weight.path: weight for weight in task.model.trainable_weights}
    assert set(shown["histograms"]) == set(weights)
    for path, series in shown["histograms"].items():
        assert series[-1][1][:, 2].sum() == np.size(weights[path])
    vectors = np.loadtxt(folder / "logs/dev/texts.vectors.tsv")
    heading, *labels = (folder / "logs/dev/texts.labels.tsv").read_text().splitlines()
    assert (heading, len(vectors)) == ("text\tlabel", len(OPINIONS))
    assert labels == [f"{example['text']}\t{example['label']}" for example in OPINIONS]
    apart = [
        vectors[[example["label"] == label for example in OPINIONS]].mean(axis=0) for label in ("positive", "negative")
    ]
    assert np.linalg.norm(apart[0] - apart[1]) > 0.1


def test_a_classifiers_guesses_make_up_its_scores(classifier):
    task, _ = classifier
    guesses = task.guesses(OPINIONS)["label"]
    assert guesses.confusion.sum() == len(OPINIONS)
    accuracy = 100 * np.trace(guesses.confusion) / len(OPINIONS)
    assert accuracy == pytest.approx(task.evaluate(OPINIONS)["accuracy"])


def test_what_tensorboard_cannot_show_is_refused_before_training(classifier, tmp_path):
    task, _ = classifier
    with pytest.raises(ValueError, match=r"^layer: 2; encoder has layers 1 to 1$"):
        task.fit(OPINIONS, OPINIONS, logdir=tmp_path, showing=Showing(layer=2))
    with pytest.raises(ConfigError, match=r"^profile: \(1, 2\), and no logdir"):
        task.fit(OPINIONS, OPINIONS, profile=(1, 2))


def test_a_classifier_learns(classifier):
    task, _ = classifier
    assert task(["the room was lovely", "the song was awful"]) == ["positive", "negative"]
    assert task("the book was good") == "positive"
    scores = task.evaluate(OPINIONS)
    assert scores["accuracy"] == scores["f1"] == 100
    assert 0 <= scores["ece"] < 20


def test_probabilities_are_those_of_all_classes_likeliest_first(classifier):
    task, _ = classifier
    (found,) = task.probabilities(["the soup was dull"])
    assert list(found) == ["negative", "positive"]
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_an_answer_does_not_depend_on_the_other_texts(classifier):
    task, _ = classifier
    texts = [example["text"] for example in OPINIONS] + ["good " * 7]
    together = task.probabilities(texts)
    for text, found in zip(texts[::7], together[::7]):
        alone = task.probabilities([text])[0]
        assert found == pytest.approx(alone, abs=1e-5)


def test_a_task_survives_its_folder(classifier):
    task, folder = classifier
    loaded = zoo.load(folder)
    assert type(loaded) is Classification
    assert loaded.recipe == task.recipe
    assert loaded.probabilities(["a lovely room"]) == [pytest.approx(task.probabilities(["a lovely room"])[0])]


def test_a_text_that_is_too_long_is_cut_and_counted(classifier):
    task, _ = classifier
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 16 tokens; the rest of each was cut off"):
        cut = task.probabilities(["the room was lovely " * 20, "the room was lovely"])
    assert cut[0] == pytest.approx(task.probabilities(["the room was lovely " * 4])[0], abs=1e-4)


def test_a_text_that_is_too_long_is_read_in_windows(classifier):
    task, folder = classifier
    beginning, end = "the room was lovely " * 10, "the song was awful the film was dull " * 20
    with pytest.warns(UserWarning, match="cut off"):
        assert task(beginning + end) == "positive"
    assert task(beginning + end, window=True) == "negative"
    short = ["the room was lovely"]
    assert task.probabilities(short, window=True) == [pytest.approx(task.probabilities(short)[0], abs=1e-5)]
    assert main(["predict", str(folder), beginning + end, "--window"]) == 0
    with pytest.raises(ValueError, match="input 1: '' is empty"):
        task([""], window=True)


def test_attention_maps_are_of_every_block(classifier, tmp_path):
    task, _ = classifier
    maps = task.attention_maps("the room was lovely")
    assert list(maps.maps) == ["encoder/block_0/self_attention"]
    queries, keys = maps.tokens("encoder/block_0/self_attention")
    assert queries == keys
    weights = maps.maps["encoder/block_0/self_attention"]
    assert weights.shape == (2, len(queries), len(keys))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    maps.save(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_bad_texts_and_labels_are_named(classifier):
    task, _ = classifier
    with pytest.raises(ValueError, match="input 2: ' ' is empty"):
        task(["good", " "])
    with pytest.raises(ValueError, match=r"example 1: no class 'positiv'; did you mean 'positive'\?"):
        task.evaluate([{"text": "good", "label": "positiv"}])
    with pytest.raises(ValueError, match="name one class only"):
        Classification.from_examples(task.recipe.__class__(), [{"text": "a b", "label": "x"}] * 3)


def test_the_command_line_prints_label_and_probability(classifier, capsys):
    _, folder = classifier
    assert main(["predict", str(folder), "the room was lovely", ""]) == 2
    printed = capsys.readouterr()
    label, probability = printed.out.splitlines()[0].split("\t")
    assert (label, 0.5 < float(probability) <= 1) == ("positive", True)
    assert "input 2: '' is empty" in printed.err
    assert main(["predict", str(folder), "the room was lovely", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["classes"]) == {"positive", "negative"}
    assert main(["predict", str(folder), "fine", "--set", "beams=1"]) == 2
    assert "beams" in capsys.readouterr().err


def test_several_labels_and_numbers_are_learned_too(tmp_path):
    examples = [
        {
            "text": e["text"],
            "label": f"{e['label']},food" if ("soup" in e["text"] or "bread" in e["text"]) else e["label"],
        }
        for e in OPINIONS
    ]
    made = recipe(ClassificationRecipe, {"label": HeadConfig(kind="labels", pooling="mean", dropout=0.0)}, "accuracy")
    task = trained(Classification.from_examples(made, examples), examples, tmp_path / "labels")
    assert sorted(task("the soup was good")) == ["food", "positive"]
    assert task("the film was bad") == ["negative"]
    numbers = [{"text": e["text"], "label": "1.5" if e["label"] == "positive" else "-1.5"} for e in OPINIONS]
    made = recipe(ClassificationRecipe, {"label": HeadConfig(kind="number", pooling="mean", dropout=0.0)}, "pearson")
    task = trained(Classification.from_examples(made, numbers), numbers, tmp_path / "numbers")
    assert task("the soup was good") > 0.5 > -0.5 > task("the soup was bad")
    assert task.evaluate(numbers)["pearson"] > 95


# === Tags, spans, several tasks ===


def test_a_tagger_learns(tmp_path):
    made = recipe(TaggingRecipe, {"tags": HeadConfig(kind="tags", dropout=0.0)}, "slot_f1")
    task = trained(Tagging.from_examples(made, ORDERS), ORDERS, tmp_path)
    assert task("bring two soup now") == ["O", "B-count", "B-thing", "O"]
    assert task.evaluate(ORDERS)["slot_f1"] == 100
    with pytest.raises(ValueError, match="example 1: 2 tags for 3 words; each word has one"):
        task.labelled([{"text": "a b c", "tags": "O O"}])


def test_a_reader_learns_to_answer(tmp_path):
    made = recipe(QuestionAnsweringRecipe, {"span": HeadConfig(kind="span", dropout=0.0)}, "f1", window=4)
    task = trained(QuestionAnswering.from_examples(made, PASSAGES), PASSAGES, tmp_path)
    assert task("who ate", "bert ate the soup") == "bert"
    assert task.evaluate(PASSAGES) == {"em": 100, "f1": 100}
    best = task("who ate", "bert ate the soup", n_best=3)
    assert [answer.score for answer in best] == sorted((answer.score for answer in best), reverse=True)
    assert best[0].text == "bert ate the soup"[best[0].start :][: len(best[0].text)]
    assert task(["who ate"], ["carla ate the bread " + "and the film was good " * 8])[0] != ""


def test_questions_are_asked_on_the_command_line_with_a_tab(tmp_path, capsys):
    made = recipe(QuestionAnsweringRecipe, {"span": HeadConfig(kind="span", dropout=0.0)}, "f1", window=4)
    QuestionAnswering.from_examples(made, PASSAGES).save(tmp_path)
    assert main(["predict", str(tmp_path), "who ate\tbert ate the soup", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == report["answers"][0]["text"]
    assert len(report["answers"]) <= 3
    assert main(["predict", str(tmp_path), "who ate"]) == 2
    assert "input 1: 'who ate': one text; write question TAB passage" in capsys.readouterr().err


def test_several_tasks_share_an_encoder(tmp_path):
    heads = {"intent": HeadConfig(pooling="mean", dropout=0.0), "tags": HeadConfig(kind="tags", dropout=0.0)}
    made = recipe(MultitaskRecipe, heads, "mean")
    examples = [
        {name: value for name, value in example.items() if i % 3 or name != "tags"} for i, example in enumerate(ORDERS)
    ]
    task = Multitask.from_examples(made, examples)
    task.fit(examples, ORDERS, out=tmp_path)
    assert task("where is my soup") == {"intent": "ask", "tags": ["O", "O", "O", "B-thing"]}
    scores = task.evaluate(ORDERS)
    assert (scores["intent_accuracy"], scores["tags_f1"], scores["sentence_accuracy"]) == (100, 100, 100)
    assert zoo.load(tmp_path)("where is my soup") == task("where is my soup")
    unseen = [*ORDERS, {"text": "sing", "intent": "perform", "tags": "O"}]
    task.check_examples(unseen)
    assert task.evaluate(unseen)["intent_accuracy"] == pytest.approx(100 * len(ORDERS) / len(unseen))
    assert task.describe(ORDERS) == ["intent: bring 18, ask 6"]
    # Of several sources, development examples may be those of one: the other heads have no score then.
    without_tags = [{name: value for name, value in example.items() if name != "tags"} for example in ORDERS]
    expected = {"intent_accuracy": 100, "intent_ece": scores["intent_ece"], "mean": 100}
    assert task.evaluate(without_tags) == expected
    with pytest.raises(ValueError, match="none says anything of intent or tags"):
        task.evaluate([{"text": "sing"}])


# === Pretrained encoders ===


@pytest.fixture
def hub(tmp_path):
    """A hub folder with a tokenizer."""
    folder = Path(shutil.copytree(FIXTURES / "bert", tmp_path / "bert"))
    tokenizer = TextTokenizer.train([example["text"] for example in OPINIONS], 45)
    tokenizer.save(folder / "tokenizer.json")
    return folder


def test_a_hub_folder_without_a_head_embeds(hub):
    embed = zoo.load(hub)
    assert type(embed) is Embedding
    vectors = embed(["the soup was good", "the film was bad"])
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embed.similarity(["the soup"], ["the soup", "a"])[0, 0], 1, atol=1e-6)


def test_an_adapter_is_saved_without_its_base(hub, tmp_path, monkeypatch):
    made = ClassificationRecipe(
        base="hf://somebody/small",
        model=EncoderHeadsConfig(EncoderConfig(dropout=0.0), {"label": HeadConfig(pooling="mean", dropout=0.0)}),
        training=dataclasses.replace(TRAINING, monitor="accuracy"),
        batching=BATCHING,
        adapt=AdaptConfig(method="lora", rank=2),
    )
    with pytest.raises(FileNotFoundError, match="hf://somebody/small: not in"):
        Classification.from_examples(made, OPINIONS)
    shutil.copytree(hub, tmp_path / "hub" / "somebody" / "small")
    monkeypatch.setenv("ZOO_HUB", str(tmp_path / "hub"))
    task = trained(Classification.from_examples(made, OPINIONS), OPINIONS, tmp_path / "out")
    assert all("lora_kernel" in path or path.startswith("label_") for path in task.saved_weights)
    loaded = zoo.load(tmp_path / "out")
    assert loaded.probabilities(["the soup was good"]) == [pytest.approx(task.probabilities(["the soup was good"])[0])]
    other = dataclasses.replace(made, adapt=AdaptConfig(method="lora", rank=3))
    refused = Classification.from_examples(other, OPINIONS)
    with pytest.raises(ValueError, match="does not fit"):
        zoo.checkpoints.load(tmp_path / "out" / "weights.safetensors", refused.saved_weights)


# === Labels ===


def test_words_begin_at_tokens():
    text = " two  words here"
    offsets = [(0, 0), (1, 4), (4, 8), (8, 11), (12, 14), (14, 16), (0, 0)]
    encoding = Encoding(range(7), [0] * 7, offsets, False)
    assert word_starts(text, encoding) == [1, 2, 4]
    cut = Encoding(range(4), [0] * 4, offsets[:4], True)
    assert word_starts(text, cut) == [1, 2, None]


def test_classes_are_found_in_alphabetical_order():
    assert find_classes(HeadConfig(), ["b", "a", "b"]) == ("a", "b")
    assert find_classes(HeadConfig(kind="labels"), ["b, a", "c", ""]) == ("a", "b", "c")
    assert find_classes(HeadConfig(kind="tags"), ["B-x", "B-y B-x"]) == ("B-x", "B-y", "O")


def test_a_span_that_was_cut_off_is_no_answer():
    encoding = Encoding(range(6), [0, 0, 1, 1, 1, 1], [(0, 0), (0, 3), (0, 4), (5, 9), (10, 12), (0, 0)], True)
    head = HeadConfig(kind="span")

    def span(answer, start):
        return read_label(head, answer, {"answer_start": str(start)}, encoding).tolist()

    assert span("abcd", 5) == [3, 3]
    assert span("wxyz abcd", 0) == [2, 3]
    assert span("abcdefgh", 10) == span("", -1) == [0, 0]


def test_a_task_has_the_heads_that_it_can_use():
    task = Tagging.from_examples(TaggingRecipe(model=EncoderHeadsConfig(SMALL, {})), OPINIONS)
    with pytest.raises(ConfigError, match="the task 'tagging' has one"):
        task("a")
