"""A summarizer that knows some dialogues by heart: lengths, windows, several references, and what it begins with."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

import zoo
from zoo.checkpoints import by_path
from zoo.config import ConfigError
from zoo.data import SourceError
from zoo.data.corruption import MASK
from zoo.data.pipeline import BatchingConfig, Pair, PairBatches
from zoo.data.tokenizers import SPACE
from zoo.generation import GenerationConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.tasks.denoising import Denoising, DenoisingRecipe
from zoo.tasks.run import open_run
from zoo.tasks.summarization import Summarization, SummarizationRecipe, SummaryConfig, exchanged
from zoo.training import OptimizerConfig, TrainingConfig

NAMES = ("Ada", "Ben", "Cleo", "Dan")
PLACES = ("Rome", "Oslo", "Bonn", "Lima", "Kiel", "Nice")
DIALOGUES = [
    {
        "source": f"#Person1#: Hello, {name}!\n#Person2#: Hi. Shall we go to {place}?\n#Person1#: Yes.",
        "target": f"{name} suggests {place}.",
        "target2": f"{name} and #Person1# will go to {place} together.",
    }
    for name in NAMES
    for place in PLACES
]
SIZES = EncoderDecoderConfig(
    vocabulary_size=0,
    width=32,
    num_heads=4,
    feedforward_dim=64,
    num_encoder_layers=1,
    num_decoder_layers=1,
    max_length=40,
    dropout=0.0,
    copying=True,
)
TRAINING = TrainingConfig(
    steps=250,
    evaluate_every=250,
    save_every=1000,
    average_decay=0.9,
    label_smoothing=0.0,
    monitor="rouge1",
    optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=50, schedule="cosine"),
)


def recipe(**changes):
    batching = BatchingConfig(buckets=((40, 24),), batch_tokens=24 * 24)
    settings = {"model": SIZES, "batching": batching, "training": TRAINING, "generation": SummaryConfig(beams=1)}
    return SummarizationRecipe(**{**settings, **changes})


def quick(task):
    """Spares XLA's compilations."""
    task.generator.jit = False
    return task


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The summarizer, which learned short and long summaries, and the folder of its run."""
    folder = tmp_path_factory.mktemp("summaries")
    summarizer = Summarization.from_examples(recipe(lengths=(4,), coverage=0.1), DIALOGUES)
    summarizer.fit(DIALOGUES, DIALOGUES[:4], out=folder)
    return quick(summarizer), folder


@pytest.fixture(scope="module")
def summarizer(trained):
    return trained[0]


@pytest.fixture
def untrained(monkeypatch):
    """A summarizer that repeats what it reads, and keeps the settings that it was asked with."""
    summarizer = Summarization.from_examples(recipe(), DIALOGUES)

    def write(sources, config):
        summarizer.asked = config
        texts = summarizer.tokenizer.decode(sources)
        return [[f"[{number}:{text}]" for number in range(config.n_best)] for text in texts]

    monkeypatch.setattr(summarizer, "write", write)
    return summarizer


def sources(examples):
    return [example["source"] for example in examples]


# === Learning ===


@pytest.mark.slow
def test_it_is_told_how_long_a_summary_shall_be(summarizer):
    short, long = (summarizer(sources(DIALOGUES), length=length) for length in (3, 9))
    assert sum(text == example["target"] for text, example in zip(short, DIALOGUES)) >= 22
    assert sum(text == example["target2"] for text, example in zip(long, DIALOGUES)) >= 22
    assert summarizer(sources(DIALOGUES), length=4) == short
    assert summarizer(sources(DIALOGUES), length=5) == long
    by_itself = summarizer(sources(DIALOGUES))
    assert all(text in (a, b) for text, a, b in zip(by_itself, short, long))


@pytest.mark.slow
def test_scores_are_means_over_the_references_and_the_best(summarizer):
    some = DIALOGUES[:5]
    metrics = summarizer.evaluate(some, length=9)
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    found = [
        [scorer.score(example[field], text)["rouge1"].fmeasure for field in ("target", "target2")]
        for example, text in zip(some, summarizer(sources(some), length=9))
    ]
    assert metrics["rouge1"] == pytest.approx(100 * np.mean(found))
    assert metrics["rouge1_best"] == pytest.approx(100 * np.mean(np.max(found, axis=1)))
    assert metrics["words"] == pytest.approx(8)
    assert metrics["rouge1_best"] > 99 > metrics["rouge1"]
    assert {"rouge2", "rougeL", "rougeLsum", "rougeL_py_rouge", "loss", "novel2", "length_ratio"} <= metrics.keys()
    assert 0 < metrics["loss"] < 1
    assert "nrefs:2" in metrics["signatures"]["rouge"]
    assert all(isinstance(value, float) for name, value in metrics.items() if name != "signatures")


@pytest.mark.slow
def test_a_saved_summarizer_says_the_same(trained, tmp_path):
    summarizer, folder = trained
    loaded = quick(zoo.load(folder))
    assert loaded.recipe == summarizer.recipe
    assert loaded.model.special_tokens == summarizer.model.special_tokens
    assert loaded(sources(DIALOGUES), length=3) == summarizer(sources(DIALOGUES), length=3)
    samples = loaded.samples(DIALOGUES[:2])
    assert samples[0]["reference"] == "Ada suggests Rome. / Ada and #Person1# will go to Rome together."


@pytest.mark.slow
def test_coverage_is_a_part_of_the_loss(summarizer):
    (batch,) = list(PairBatches(summarizer.pairs(DIALOGUES[:2]), summarizer.recipe.batching).epoch(None))
    found = {}
    for factor in (0.0, 0.5):
        task = Summarization.__new__(Summarization)
        task.recipe = dataclasses.replace(summarizer.recipe, coverage=factor)
        task.model = summarizer.model
        found[factor], metrics = task.loss(summarizer.model, batch, training=False)
    assert 0 < float(metrics["coverage"]) < 1
    assert float(found[0.5] - found[0.0]) == pytest.approx(0.5 * float(metrics["coverage"]), rel=1e-4)
    assert float(found[0.0]) == pytest.approx(summarizer.dev_loss(summarizer.pairs(DIALOGUES[:2])), rel=1e-3)


def test_what_is_no_text_is_never_written():
    summarizer = Summarization.from_examples(recipe(lengths=(4, 8)), DIALOGUES)
    never = summarizer.tokenizer.tokens(summarizer.model.special_tokens.never)
    assert never == ["<pad>", "<s>", "<unk>", "<length_0>", "<length_1>", "<length_2>"]


def test_no_word_is_put_together_from_pieces_of_several():
    summarizer = quick(
        Summarization.from_examples(recipe(model=dataclasses.replace(SIZES, vocabulary_size=60)), DIALOGUES)
    )
    rng = np.random.default_rng(0)
    for weight in summarizer.model.weights:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    texts = sources(DIALOGUES[:6])
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    tokens = summarizer.tokenizer.tokens(range(summarizer.tokenizer.vocabulary_size))

    def broken(summary):
        pieces = re.findall(r"\w+", summary)
        return [p for p in pieces if SPACE + p not in tokens and not any(word.startswith(p) for word in words)]

    for settings in ({"beams": 1}, {"beams": 3}):
        assert any(map(broken, summarizer(texts, max_length=16, **settings)))
        assert not any(map(broken, summarizer(texts, max_length=16, whole_words=True, **settings)))


# === Texts that are too long ===


def test_a_dialogue_may_stand_on_one_line(untrained):
    text = DIALOGUES[0]["source"]
    assert untrained(text.replace("\n", " ")) == untrained(text)
    long = " ".join(sources(DIALOGUES[:4]))
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 39 tokens; each is summarized window by window"):
        windows = untrained(long.replace("\n", " ")).split("] [")
    assert len(windows) == 3
    assert all(window.lstrip("[").startswith("0:#Person") for window in windows)


def test_a_long_dialogue_is_summarized_in_windows(untrained):
    long = "\n".join(sources(DIALOGUES[:5]))
    short = DIALOGUES[7]["source"]
    with pytest.warns(UserWarning, match="1 of 3 texts are longer than 39 tokens; each is summarized window by window"):
        first, several, last = untrained([short, long, short], beams=2, n_best=2)
    assert first == last == untrained(short, beams=2, n_best=2)
    assert [text.count("[") for text in several] == [text.count(f"[{i}:") for i, text in enumerate(several)]
    said = several[0].replace("[0:", "").replace("]", "")
    assert said.split() == untrained.tokenizer.decode(untrained.tokenizer.encode([long]))[0].split()


def test_or_what_is_too_long_is_cut_off_behind_a_sentence(untrained):
    long = "\n".join(sources(DIALOGUES[:5]))
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 39 tokens; the rest of each was cut off"):
        text = untrained(long, window=False)
    assert text.count("[") == 1
    (whole,) = untrained.tokenizer.decode(untrained.tokenizer.encode([long]))
    assert whole.startswith(text[3:-1])
    assert text.endswith((".]", "!]", "?]"))
    assert type(untrained.asked) is GenerationConfig


@pytest.mark.parametrize("parts", [{"window": 8, "global_tokens": 1}, {"chunk": 16}])
def test_a_recipe_chooses_how_long_documents_are_read(parts, tmp_path):
    asked = recipe(
        model=dataclasses.replace(SIZES, max_length=120, **parts),
        batching=BatchingConfig(buckets=((120, 24),), batch_tokens=48, pack=False),
        training=dataclasses.replace(TRAINING, steps=2, evaluate_every=2, optimizer=OptimizerConfig(warmup_steps=1)),
    )
    summarizer = quick(Summarization.from_examples(asked, DIALOGUES))
    long = {"source": "\n".join(sources(DIALOGUES[:4])), "target": "They talk."}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* longer than")  # what 39 tokens cannot hold, 120 do
        summarizer.fit([long] * 3, [long], out=tmp_path)
        summary = summarizer(long["source"])
    assert isinstance(summary, str)
    assert not any(path.startswith("encoder/") for path in summarizer.attention_maps(long["source"], "Yes.").maps)
    with pytest.warns(
        UserWarning, match="1 of 1 texts are longer than 119 tokens; each is summarized window by window"
    ):
        summarizer("\n".join(sources(DIALOGUES)))
    again = quick(zoo.load(tmp_path))
    assert again.recipe.model == summarizer.recipe.model
    assert again(long["source"]) == summary


def test_chunks_of_packed_texts_are_refused():
    with pytest.raises(ConfigError, match=r"batching\.pack: true, and model\.chunk cuts rows, not the texts packed"):
        recipe(model=dataclasses.replace(SIZES, chunk=16))


def test_training_counts_what_it_cuts_off_and_leaves_out(untrained):
    long = {"source": "\n".join(sources(DIALOGUES[:5])), "target": "Many go to Rome."}
    endless = {"source": DIALOGUES[0]["source"], "target": "They go to Rome. " * 10}
    with pytest.warns(UserWarning, match="are") as said:
        batches = untrained.batches([*DIALOGUES, long, endless])
    assert [str(warning.message) for warning in said] == [
        "1 of 26 examples are longer than 39 tokens; the rest of each was cut off",
        "1 of 50 summaries are longer than 23 tokens; they are left out",
    ]
    assert batches.too_long == 1
    assert max(len(pair.source) for pair in batches.pairs) <= 39


def test_every_reference_is_a_training_example(untrained):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = untrained.batches(DIALOGUES).pairs
    decode = untrained.tokenizer.decode
    assert decode([pair.target for pair in pairs[:2]]) == [DIALOGUES[0]["target"], DIALOGUES[0]["target2"]]
    assert pairs[0].source == pairs[1].source


# === Lengths ===


def test_half_of_the_training_examples_tell_their_length():
    summarizer = Summarization.from_examples(recipe(lengths=(4,)), DIALOGUES)
    batches = summarizer.batches(DIALOGUES)
    signs = [summarizer.tokenizer.token_id(token) for token in ("<length_0>", "<length_1>")]
    for epoch in (0, 1):
        pairs = batches.pass_of(epoch).pairs
        told = [pair for pair in pairs if pair.source[0] in signs]
        assert 12 <= len(told) <= 36
        for source, target in told:
            words = summarizer.tokenizer.decode([target])[0].split()
            assert source[0] == signs[len(words) > 4]
            assert not set(signs) & set(source[1:])
    assert batches.pass_of(0).pairs != batches.pass_of(1).pairs
    assert len(summarizer.encode_inputs(sources(DIALOGUES[:1]))[0]) <= summarizer.longest == 38


def test_lengths_that_were_not_learned_are_refused(untrained):
    with pytest.raises(ConfigError, match="length: 12, and this model learned no lengths; max_length and min_length"):
        untrained(DIALOGUES[0]["source"], length=12)
    with pytest.raises(ConfigError, match=r"lengths: \[9, 4\]; it takes rising numbers of words"):
        recipe(lengths=(9, 4))
    with pytest.raises(ConfigError, match=r"generation.length: the model learns no lengths; set lengths too"):
        recipe(generation=SummaryConfig(length=9))


# === Speakers who change places ===


def test_speakers_have_each_others_marks_in_a_text_and_its_summary():
    marks = [7, 8, 9]
    assert exchanged(Pair([7, 1, 8, 2, 7], [8, 5, 7]), marks) == Pair([8, 1, 7, 2, 8], [7, 5, 8])
    assert exchanged(Pair([9, 1, 7, 8], [7, 9]), marks) == Pair([7, 1, 8, 9], [8, 7])
    assert exchanged(Pair([7, 1, 7], [7, 8]), marks) == Pair([7, 1, 7], [7, 8])


def test_a_share_of_the_training_examples_has_other_speakers_in_every_pass():
    summarizer = Summarization.from_examples(recipe(swap_speakers=0.5), DIALOGUES)
    marks = [summarizer.tokenizer.token_id(f"#Person{number}#") for number in (1, 2)]
    plain, batches = summarizer.pairs(DIALOGUES), summarizer.batches(DIALOGUES)
    swapped = []
    for epoch in (0, 1):
        found = [pair == exchanged(old, marks) for pair, old in zip(batches.pass_of(epoch).pairs, plain)]
        assert all(new or pair == old for new, pair, old in zip(found, batches.pass_of(epoch).pairs, plain))
        assert 12 <= sum(found) <= 36
        swapped.append(found)
    assert swapped[0] != swapped[1]
    with pytest.raises(ConfigError, match=r"swap_speakers: 2\.0; it takes a share between 0 and 1"):
        recipe(swap_speakers=2.0)


# === Bad input ===


@pytest.mark.parametrize("text", ["", " \n ", "#Person1#:", "#Person1#:\n#Person2#: ...", "\x00"])
def test_an_empty_dialogue_is_refused_by_its_number(untrained, text):
    with pytest.raises(ValueError, match=r"^input 2: '.*' is empty; give a text, or a dialogue in which somebody says"):
        untrained([DIALOGUES[0]["source"], text])


def test_a_word_that_is_longer_than_the_model_reads_is_named(untrained):
    with pytest.raises(ValueError, match=r"^input 1: 'RomeRome.*' alone has \d+ tokens, and 39 fit; a word is not cut"):
        untrained("Rome" * 200)


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ({"source": "Hello, Ada!"}, "example 2: the example .*: no field 'target'"),
        ({"source": "Hello, Ada!", "target": " "}, "example 2: the example .*: nothing under 'target'"),
        ({"dialogue": "Hello, Ada!", "target": "Ada"}, "example 2: no field 'source'; there is dialogue, target"),
    ],
    ids=["no column", "nothing in it", "no source"],
)
def test_an_example_without_source_or_reference_is_named(untrained, example, says):
    for function in (untrained.evaluate, untrained.batches, untrained.check_examples):
        with pytest.raises(SourceError, match=says):
            function([DIALOGUES[0], example])
    with pytest.raises(SourceError, match=says):
        Summarization.evaluate_baseline("lead-3", [DIALOGUES[0], example])


def test_vocabularies_of_their_own_are_refused():
    with pytest.raises(ConfigError, match=r"a text and its summary share one vocabulary; set it to null"):
        recipe(model=dataclasses.replace(SIZES, copying=False, target_vocabulary_size=50))


# === Baselines ===


def test_a_baseline_is_scored_without_a_model():
    scores = Summarization.evaluate_baseline(
        "lead-1", [{"source": "Ada sat.\nBen ran.", "target": "Ada sat. Ben ran."}]
    )
    assert scores["rouge1"] == pytest.approx(100 * 2 * 1 * 0.5 / 1.5)
    assert scores["words"] == 2
    with pytest.raises(ValueError, match="baseline 'lead': "):
        Summarization.evaluate_baseline("lead", DIALOGUES)
    with pytest.raises(ConfigError, match="baseline 'lead-3': this task has none"):
        Denoising.evaluate_baseline("lead-3", DIALOGUES)


# === Going on from a denoiser ===


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a denoiser that copies nothing and knows no speakers."""
    folder = tmp_path_factory.mktemp("base")
    sizes = dataclasses.replace(SIZES, copying=False, width=16, max_length=64)
    texts = [{"text": text} for example in DIALOGUES for text in (example["target"], example["target2"])]
    denoiser = Denoising.from_examples(
        DenoisingRecipe(model=sizes, batching=BatchingConfig(buckets=((24, 24),), batch_tokens=240)), texts
    )
    rng = np.random.default_rng(0)
    for weight in denoiser.model.weights:
        weight.assign(rng.normal(0, 0.2, weight.shape))
    denoiser.save(folder)
    return folder


def test_it_begins_with_the_weights_and_the_vocabulary_of_its_base(base, tmp_path):
    asked = recipe(base=str(base), lengths=(4,))
    summarizer = open_run(asked, DIALOGUES, tmp_path)
    denoiser = zoo.load(base)
    mine, theirs = by_path(summarizer.model.weights), by_path(denoiser.model.weights)
    assert sorted(mine.keys() - theirs.keys()) == ["copy_context/kernel", "copying/gate/bias", "copying/gate/kernel"]
    size = denoiser.source_tokenizer.vocabulary_size
    for path, weight in theirs.items():
        found = np.array(mine[path])
        np.testing.assert_array_equal(found[:size] if "embedding" in path else found, np.array(weight))
    assert summarizer.recipe.model == dataclasses.replace(
        denoiser.recipe.model, max_length=40, copying=True, dropout=0.0, vocabulary_size=size + 4
    )
    assert summarizer.tokenizer.special == [MASK, "<length_0>", "<length_1>", "#Person1#", "#Person2#"]
    assert summarizer.tokenizer.tokens(range(size)) == denoiser.source_tokenizer.tokens(range(size))
    # A run that was stopped before its first checkpoint begins with the same weights again.
    again = open_run(asked, DIALOGUES, tmp_path)
    for one, other in zip(summarizer.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


def test_a_base_may_go_on_with_a_window(base):
    summarizer = Summarization.from_examples(
        recipe(base=str(base), model=dataclasses.replace(SIZES, window=8, global_tokens=1)), DIALOGUES
    )
    assert (summarizer.recipe.model.window, summarizer.recipe.model.global_tokens) == (8, 1)
    mine, theirs = (
        by_path(task.model.weights)["encoder/block_0/self_attention/query/kernel"]
        for task in (summarizer, zoo.load(base))
    )
    np.testing.assert_array_equal(np.array(mine), np.array(theirs))


def test_what_cannot_be_a_base_is_refused(base, tmp_path):
    with pytest.raises(FileNotFoundError, match="no preset 'nowhere'"):
        Summarization.from_examples(recipe(base="nowhere"), DIALOGUES)
    denoiser = zoo.load(base)
    denoiser.save(tmp_path)
    weights = by_path(denoiser.model.weights)
    del weights["encoder/final_norm/gamma"]
    zoo.checkpoints.save(tmp_path / "weights.safetensors", weights)
    with pytest.raises(ValueError, match=r"missing encoder/final_norm/gamma \(16,\)"):
        Summarization.from_examples(recipe(base=str(tmp_path)), DIALOGUES)
    card = tmp_path / "preset.json"
    card.write_text('{"recipe": {"task": "classification"}}')
    with pytest.raises(ConfigError, match="its task is 'classification'; it takes an encoder-decoder"):
        Summarization.from_examples(recipe(base=str(tmp_path)), DIALOGUES)
