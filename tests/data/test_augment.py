"""Each operation in cases that can be done by hand, and what must hold for any text."""

from collections import Counter

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data import SourceError
from zoo.data.augment import STOP_WORDS, Eda, EdaConfig, nearest_words, read_synonyms, token_words
from zoo.data.texts import LabelledText, TextBatches, TextBatchingConfig, TextTokenizer

SYNONYMS = {"good": ["fine"], "film": ["movie"], "the": ["a"], "not": ["never"], "dull": ["boring", "flat"]}
TEXTS = ["The film was not good .", "a dull , dull evening at the film", "Good!", "dull", "(the film)", "the the the"]


def eda(share=1.0, alpha=0.1, synonyms=SYNONYMS, **settings):
    config = EdaConfig(share=share, alpha=alpha, synonyms="words.tsv", **settings)
    return Eda(config, None if synonyms is None else lambda word: synonyms.get(word, ()))


def generators(count=200):
    return [np.random.default_rng(seed) for seed in range(count)]


# === Operations ===


@pytest.mark.parametrize(
    ("text", "alpha", "possible"),
    [
        # int(0.1 * 5) is 0, and at least one word is replaced; "the" and "not" are stop words.
        ("the film was not good", 0.1, {"the movie was not good", "the film was not fine"}),
        ("the film was not good", 0.4, {"the movie was not fine"}),
        ("the film was not good", 1.0, {"the movie was not fine"}),
        ("dull film", 0.5, {"boring film", "flat film", "dull movie"}),
        ("Good! (film)", 1.0, {"Fine! (movie)"}),
        ("nothing known here", 0.5, {"nothing known here"}),
    ],
)
def test_replacing(text, alpha, possible):
    found = {" ".join(eda(alpha=alpha).replace(text.split(), random)) for random in generators()}
    assert found == possible


def test_inserting():
    found = {" ".join(eda().insert(["the", "film"], random)) for random in generators()}
    assert found == {"movie the film", "the movie film", "the film movie"}
    assert eda(alpha=1.0).insert(["film"] * 3, generators(1)[0]).count("movie") == 3
    assert eda().insert(["the", "not"], generators(1)[0]) == ["the", "not"]


def test_swapping():
    assert eda().swap(["a", "b"], generators(1)[0]) == ["b", "a"]
    assert eda(alpha=1.0).swap(["a", "b"], generators(1)[0]) == ["a", "b"]  # twice
    assert eda().swap(["a"], generators(1)[0]) == ["a"]
    found = {"".join(eda().swap("abc", random)) for random in generators()}
    assert found == {"bac", "cba", "acb"}


def test_deleting():
    words = list("abcdefgh")
    assert {len(eda(alpha=1.0).delete(words, random)) for random in generators()} == {1}
    assert {eda(alpha=1.0).delete(words, random)[0] for random in generators()} == set(words)
    lost = [8 - len(eda(alpha=0.25).delete(words, random)) for random in generators(500)]
    # Two of eight on the average; the mean of 500 binomials strays by 0.055.
    assert np.mean(lost) == pytest.approx(2, abs=0.25)


# === Any text ===


@pytest.mark.parametrize("operation", ["replace", "insert", "swap", "delete"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_operation_keeps_what_it_must(text, operation):
    words = text.split()
    change = getattr(eda(alpha=0.4), operation)
    for random in generators(50):
        found = change(words, random)
        assert words == text.split()
        assert found
        assert all(found)
        if operation == "swap":
            assert Counter(found) == Counter(words)
        if operation == "delete":
            assert not Counter(found) - Counter(words)
        if operation == "insert":
            assert not Counter(words) - Counter(found)
        if operation == "replace":
            assert len(found) == len(words)
            for old, new in zip(words, found):
                assert old == new or old.lower().strip(".,!()") not in STOP_WORDS


def test_a_share_of_the_texts_is_changed():
    text = " ".join(map(str, range(12)))
    change = eda(share=0.3, operations=("swap",))
    assert np.mean([change(text, random) != text for random in generators(1000)]) == pytest.approx(0.3, abs=0.05)
    assert eda(share=1.0, operations=("swap",))("", generators(1)[0]) == ""
    spaced = "two  words"
    assert eda(share=0.0)(spaced, generators(1)[0]) == spaced


def test_the_same_generator_gives_the_same_text():
    change = eda(alpha=0.3)
    for text in TEXTS:
        first = [change(text, random) for random in generators(20)]
        assert first == [change(text, random) for random in generators(20)]
    assert len({change(TEXTS[1], random) for random in generators(50)}) > 10


def test_without_synonyms_words_are_swapped_and_deleted_only():
    assert eda(synonyms=None).operations == ["swap", "delete"]
    assert eda().operations == ["replace", "insert", "swap", "delete"]


# === Synonyms ===


def test_synonyms_are_read_from_a_file(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("Good\tfine\tof worth\n\nbad\tpoor\ngood\tgreat\n", encoding="utf-8")
    synonyms = read_synonyms(path)
    assert [list(synonyms(word)) for word in ("good", "bad", "ugly")] == [["fine", "of worth", "great"], ["poor"], []]


@pytest.mark.parametrize(("text", "line"), [("good\n", 1), ("good\tfine\nbad\t\n", 2), ("\tfine\n", 1)])
def test_a_line_without_a_synonym_is_named(tmp_path, text, line):
    path = tmp_path / "words.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=f"line {line}: .*it takes a word TAB synonym"):
        read_synonyms(path)
    with pytest.raises(SourceError, match="no such file"):
        read_synonyms(tmp_path / "none.tsv")


def test_the_nearest_words_point_the_same_way():
    embeddings = np.array([[9, 9], [1, 0], [5, 1], [0, 2], [-1, 0], [1, 0.1]], "float32")
    words = {"good": 1, "fine": 2, "bad": 4, "odd": 3, "nice": 5}
    cosine = {"fine": 5 / np.sqrt(26), "nice": 1 / np.sqrt(1.01)}
    assert cosine["nice"] > cosine["fine"] > 0.9
    assert nearest_words(words, embeddings, 5, 0.9)("good") == ["nice", "fine"]
    assert nearest_words(words, embeddings, 1, 0.9)("good") == ["nice"]
    assert nearest_words(words, embeddings, 5, 0.99)("good") == ["nice"]
    assert nearest_words(words, embeddings, 5, 0.99)("bad") == []
    assert nearest_words(words, embeddings, 5, 0.5)("unknown") == ()


def test_many_words_have_the_same_neighbours_as_one_by_one(rng):
    embeddings = rng.normal(size=(700, 8)).astype("float32")
    words = {f"w{i}": i for i in range(700)}
    found = nearest_words(words, embeddings, 3, 0.6)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for i in (0, 511, 512, 699):
        order = np.argsort(-(unit @ unit[i]))[1:4]
        assert found(f"w{i}") == [f"w{j}" for j in order if unit[j] @ unit[i] >= 0.6]


def test_words_are_those_of_one_token():
    texts = ["Silver clouds, the silver moon"] * 5 + ["silvers"]
    tokenizer = TextTokenizer.train(["silver clouds moon the silver moon"] * 5, 38)
    words = token_words(texts, tokenizer)
    assert words
    assert "the" not in words
    for word, token in words.items():
        assert word in {"silver", "clouds", "moon"}
        assert tokenizer.tokens(tokenizer.encode([word])[0].ids)[1:-1] == tokenizer.tokens([token])
    assert token_words(["моон", "ü"], tokenizer) == {}


# === Batches ===


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train([*TEXTS, "movie fine boring flat never"])


def batches(tokenizer, change, seed=0, buckets=(8, 16)):
    encodings = tokenizer.encode(TEXTS)
    texts = [LabelledText(encoding, {"label": np.array(i)}) for i, encoding in enumerate(encodings)]

    def augment(number, random):
        return tokenizer.encode([change(TEXTS[number], random)])[0]

    specs = {"label": np.zeros((), np.int32)}
    return TextBatches(texts, TextBatchingConfig(buckets=buckets, batch_size=4), specs, seed=seed, augment=augment)


def written(made, epoch, start=0):
    """What a pass' batches say: label -> tokens."""
    passes = []
    for batch in made.epoch(epoch, start):
        tokens, labels, asked = (np.array(batch[name]) for name in ("tokens", "labels/label", "weights/label"))
        rows = zip(labels.tolist(), tokens, asked)
        passes.append({label: tuple(row[row != 0].tolist()) for label, row, weight in rows if weight})
    return passes


def test_a_pass_is_the_same_again_and_from_its_middle(tokenizer):
    change = eda(alpha=0.4)
    made = batches(tokenizer, change)
    passes = [written(made, epoch) for epoch in range(3)]
    assert len(passes[0]) == 2
    assert passes[0] != passes[1] != passes[2]
    again = batches(tokenizer, change)
    assert [written(again, epoch) for epoch in range(3)] == passes
    assert written(again, 1, start=1) == passes[1][1:]
    assert written(batches(tokenizer, change, seed=1), 0) != passes[0]


def test_a_pass_without_a_number_is_left_alone(tokenizer):
    plain = [tuple(encoding.ids) for encoding in tokenizer.encode(TEXTS)]
    made = batches(tokenizer, eda(alpha=0.4))
    assert {label: row for batch in written(made, None) for label, row in batch.items()} == dict(enumerate(plain))


def test_batches_keep_their_shapes_and_a_text_that_outgrows_its_row_stays(tokenizer):
    plain = [tuple(encoding.ids) for encoding in tokenizer.encode(TEXTS)]
    longest = max(map(len, plain))
    change = eda(alpha=1.0, operations=("insert",))
    made = batches(tokenizer, change, buckets=(longest,))
    assert {batch["tokens"].shape for batch in made.epoch(0)} == {(4, longest)}
    found = {label: row for batch in written(made, 0) for label, row in batch.items()}
    grown = {label for label in found if len(found[label]) > len(plain[label])}
    stayed = {label for label in found if found[label] == plain[label]}
    assert grown
    assert plain.index(max(plain, key=len)) in stayed
    assert grown | stayed == set(found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, "share, alpha: 1.5"),
        ({"alpha": 0.0}, "share, alpha: 0.0, 0.0"),
        ({"operations": ()}, "operations: \\[\\]"),
        ({"operations": ("replace",)}, "replace and insert take synonyms"),
        ({"operations": ("swapp",)}, "did you mean 'swap'"),
        ({"neighbours": 0}, "neighbours: 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        EdaConfig(**settings)
