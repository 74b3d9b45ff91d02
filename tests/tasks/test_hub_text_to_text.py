"""From a hub folder to a translator or summarizer: text in, the text of transformers out; and on to training."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import cli
from zoo.checkpoints import CheckpointError
from zoo.config import ConfigError
from zoo.data.pipeline import BatchingConfig
from zoo.data.tokenizers import VocabularyError
from zoo.generation import GenerationConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder
from zoo.tasks.run import read_recipe
from zoo.tasks.summarization import Summarization, SummarizationRecipe
from zoo.tasks.translation import Translation, TranslationRecipe
from zoo.training import OptimizerConfig, TrainingConfig

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
PAIRS = [
    {"source": source, "target": target}
    for source, target in [
        ("the dog runs", "der Hund läuft"),
        ("two people", "zwei Leute"),
        ("the river", "der Fluss"),
        ("bread, cheese and apples", "Brot, Käse und Äpfel"),
    ]
]


@pytest.fixture(scope="module")
def stored():
    return json.loads((FIXTURES / "seq2seq_texts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tasks():
    """Gives the task of a fixture, which no test may change; it runs without XLA, which spares its compilations."""

    @functools.cache
    def load(name):
        task = zoo.load(FIXTURES / name)
        task.generator.jit = False
        return task

    return load


@pytest.fixture
def copied(tmp_path):
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


# === Text in, text out ===


@pytest.mark.parametrize(
    ("name", "kind"), [("marian", Translation), ("bart", Summarization), ("m2m_100", Translation), ("t5", Translation)]
)
def test_texts_are_those_of_transformers(name, kind, tasks, stored):
    task = tasks(name)
    assert type(task) is kind
    # What transformers makes of an empty text nobody needs.
    texts, expected = ([text for text, read in zip(texts, stored["texts"]) if read] for texts in
                       (stored["texts"], stored[name]["outputs"]))  # fmt: skip
    assert task(texts, beams=3, max_length=13) == expected


def test_a_text_is_found_as_the_checkpoint_says(copied, stored):
    folder = copied("t5")
    path = folder / "generation_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "num_beams": 3, "max_length": 14}))
    task = zoo.load(folder)
    task.generator.jit = False
    text = stored["texts"][0]
    assert task(text) == stored["t5"]["outputs"][0]
    assert task.recipe.generation == dataclasses.replace(
        GenerationConfig(beams=3, max_length=13, length_penalty_form="power", top_k=50),
        early_stopping="heuristic",
        late_ends=False,
        renormalize=False,
        force_end=False,
    )


def test_the_command_line_translates(tasks, stored, capsys, monkeypatch):
    loaded = {name: tasks(name) for name in ("t5", "mbart")}
    monkeypatch.setattr(zoo, "load", lambda name: loaded[Path(name).name])
    text, settings = stored["texts"][0], ["--set", "beams=3", "max_length=13"]
    assert cli.main(["predict", str(FIXTURES / "t5"), text, *settings]) == 0
    assert capsys.readouterr().out == f"{stored['t5']['outputs'][0]}\n"
    assert cli.main(["predict", str(FIXTURES / "mbart"), text, "--set", "target_language=de"]) == 2
    assert "target_language: no language 'de'; did you mean 'de_DE'?" in capsys.readouterr().err


def test_languages_are_chosen_for_a_call(tasks, stored):
    task = tasks("mbart")
    special = task.model.special_tokens
    text = stored["texts"][0]
    assert task(text, beams=3, max_length=13) == stored["mbart"]["outputs"][0]
    other = task(text, beams=3, max_length=13, source_language="de_DE", target_language="en_XX")
    assert other != stored["mbart"]["outputs"][0]
    assert task.model.special_tokens == special
    (ids,) = task.source_tokenizer.encode([text])
    english, german = (task.source_tokenizer.token_id(name) for name in ("en_XX", "de_DE"))
    source, target = [[*ids, special.end, german]], [[english]]
    # The same model, built for targets that begin with this language.
    special = dataclasses.replace(special, start=english)
    model = encoder_decoder(dataclasses.replace(task.recipe.model, special_tokens=special))
    model.set_weights(task.model.get_weights())
    for _ in range(4):  # greedily, by hand
        logits = np.array(model({"source": np.array(source), "target": np.array(target)}))
        target[0].append(int(logits[0, -1].argmax()))
    found = task(text, beams=1, max_length=5, source_language="de_DE", target_language="en_XX")
    assert found == task.target_tokenizer.decode([target[0][1:]])[0]


def test_where_it_looks_is_shown_with_its_tokens(tasks):
    found = tasks("m2m_100").attention_maps("the dog", "der Hund")
    assert (found.source_tokens[0], found.source_tokens[-1]) == ("__en__", "</s>")
    assert found.target_tokens[:2] == ["</s>", *tasks("m2m_100").source_tokenizer.tokens([110])]
    assert "".join(found.target_tokens[2:]) == "▁der▁Hund"
    shape = found.maps["decoder/block_0/cross_attention"].shape
    assert shape == (2, len(found.target_tokens), len(found.source_tokens))


# === Folders ===


@pytest.mark.parametrize("name", ["marian-separate", "t5"])
def test_it_is_saved_and_loaded(name, tasks, stored, tmp_path):
    task = tasks(name)
    task.save(tmp_path / "saved")
    again = zoo.load(tmp_path / "saved")
    again.generator.jit = False
    assert again.recipe == task.recipe
    texts = [*stored["texts"][:2], "the</s>dog"]
    assert again.encode_inputs(texts) == task.encode_inputs(texts)
    settings = {"beams": 1, "max_length": 8}
    assert again(texts, **settings) == task(texts, **settings)


# === Training ===


def test_training_goes_on_from_it(tasks):
    recipe = TranslationRecipe(
        base=str(FIXTURES / "marian"),
        model=EncoderDecoderConfig(dropout=0.0),
        batching=BatchingConfig(buckets=((32, 32),), batch_tokens=64),
        training=TrainingConfig(
            steps=30,
            evaluate_every=30,
            monitor="loss",
            average_decay=0.0,
            jit=False,
            optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=5),
        ),
    )
    task = Translation.from_examples(recipe, PAIRS)
    loaded = tasks("marian")
    assert task.recipe.model == dataclasses.replace(loaded.recipe.model, dropout=0.0)
    for ours, theirs in zip(task.model.weights, loaded.model.weights, strict=True):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))
    assert task.pairs(PAIRS) == loaded.pairs(PAIRS)
    task.generator.jit = False
    task.recipe = dataclasses.replace(task.recipe, generation=GenerationConfig(beams=1, max_length=8))
    before = by_hand(task, PAIRS)
    assert task.dev_loss(task.pairs(PAIRS)) == pytest.approx(before, rel=1e-4)
    task.fit(PAIRS, PAIRS)
    assert by_hand(task, PAIRS) < before / 2


def by_hand(task, pairs):
    """The loss in nats a token, pair by pair."""
    special, losses = task.model.special_tokens, []
    for source, target in task.pairs(pairs):
        inputs = {"source": np.array([[*source, special.end]]), "target": np.array([[special.start, *target]])}
        logits = np.array(task.model(inputs))[0].astype("float64")
        gained = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        losses += [-gained[t, token] for t, token in enumerate([*target, special.end])]
    return np.mean(losses)


def test_a_recipe_names_its_base():
    base = str(FIXTURES / "bart")
    recipe = read_recipe("summarization", assignments=[f"base={base}", "batching.buckets=[[40, 24]]"])
    assert recipe.base == base
    texts = [{"source": "the dog runs", "target": "a dog"}, {"source": "two people sit", "target": "people"}]
    task = Summarization.from_examples(recipe, texts)
    assert task.recipe.hub
    assert (task.recipe.model.positions, task.recipe.model.copying) == ("learned", False)
    batch = task.batches(texts).batch(0, [[0]])
    start = task.model.special_tokens.start
    assert batch["target"][0, :2].tolist() == [start, 0]
    assert batch["labels"][0, 0] == 0


def test_languages_are_chosen_for_training():
    recipe = TranslationRecipe(
        base=str(FIXTURES / "m2m_100"), target_language="fr", batching=BatchingConfig(buckets=((32, 32),))
    )
    task = Translation.from_examples(recipe, PAIRS)
    french = task.source_tokenizer.token_id("__fr__")
    assert task.model.special_tokens.beginning == (french,)
    assert task.batches(PAIRS).batch(0, [[0]])["labels"][0, 0] == french


# === Bad input ===


def test_a_folder_without_a_tokenizer_is_named():
    with pytest.raises(VocabularyError, match=r"pegasus: no tokenizer; it takes tokenizer.json, or spiece.model"):
        zoo.load(FIXTURES / "pegasus")


def test_texts_that_the_model_cannot_read_are_named(tasks):
    with pytest.raises(ValueError, match="input 2: '' is empty"):
        tasks("t5")(["the dog", ""])
    with pytest.raises(ValueError, match=r"input 1: 'dog dog .* tokens, the model takes 39; split it up"):
        tasks("t5")("dog " * 60)


def test_a_base_of_another_kind_is_named():
    for base in ("bert", "gpt2"):
        with pytest.raises(ConfigError, match=f"fixtures/{base}': {base} is no model from text to text"):
            Translation.from_examples(TranslationRecipe(base=str(FIXTURES / base)), PAIRS)
    with pytest.raises(CheckpointError, match="two models"):
        Summarization.from_examples(SummarizationRecipe(base=str(FIXTURES / "blip")), PAIRS)
