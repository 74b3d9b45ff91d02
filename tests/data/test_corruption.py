"""What corruption must keep: the text can be put together again, shares are what they should be, marks stay."""

import collections

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data.corruption import (
    MASK,
    SENTINELS,
    DenoisingConfig,
    MaskingConfig,
    SpanCorruptionConfig,
    TokenKinds,
    corrupt_spans,
    denoise,
    infill,
    mask_tokens,
    permute_sentences,
)
from zoo.data.tokenizers import Tokenizer

# A made-up vocabulary: <pad> <s> </s> <unk>, the mask, 80 sentinels, a speaker's mark, a full stop, then words: every
# second token continues the word of the token before it.
HIDE, SENTINEL, SPEAKER, STOP, WORDS, SIZE = 4, 5, 85, 86, 87, 487
KINDS = TokenKinds(
    fixed=np.arange(SIZE) <= SPEAKER,
    starts_word=np.arange(SIZE) % 2 == WORDS % 2,
    ends_sentence=np.arange(SIZE) == STOP,
    mask=HIDE,
    sentinels=tuple(range(SENTINEL, SPEAKER)),
)
NOTHING = DenoisingConfig(permute=False, infill=0)
ONE_OF_EACH = [
    DenoisingConfig(mask=0.1, delete=0.1, rotate=True),
    DenoisingConfig(infill=0.5, whole_words=True),
    SpanCorruptionConfig(),
    SpanCorruptionConfig(share=0.5, mean_span=2, whole_words=True),
    MaskingConfig(),
    MaskingConfig(whole_words=True),
]
CALLS = {DenoisingConfig: denoise, SpanCorruptionConfig: corrupt_spans, MaskingConfig: mask_tokens}


def corrupt(ids, config, seed=0):
    """Returns the corrupted text and, where there is one, what the model shall say of it."""
    found = CALLS[type(config)](ids, KINDS, config, np.random.default_rng(seed))
    return [found] if isinstance(found, np.ndarray) else list(found)


def dialogue(length=60, seed=0):
    """A text with a speaker's mark in ten tokens and a full stop in ten."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(WORDS, SIZE, length)
    ids[rng.random(length) < 0.1] = SPEAKER
    ids[rng.random(length) < 0.1] = STOP
    return ids.tolist()


def words(length, seed=0):
    return np.random.default_rng(seed).integers(WORDS, SIZE, length).tolist()


def without(ids, *tokens):
    return [i for i in ids if i not in tokens]


# === All of them ===


@pytest.mark.parametrize("config", ONE_OF_EACH)
def test_the_generator_alone_decides(config):
    ids = dialogue()
    before = list(ids)
    first, same, other = (np.concatenate(corrupt(ids, config, seed)) for seed in (3, 3, 4))
    assert first.tolist() == same.tolist() != other.tolist()
    assert first.dtype == np.int32
    assert ids == before


@pytest.mark.parametrize("config", ONE_OF_EACH)
@pytest.mark.parametrize("ids", [[], [WORDS], [SPEAKER], [SPEAKER, SPEAKER], [WORDS, STOP]])
def test_the_shortest_texts_are_no_harm(config, ids):
    for seed in range(20):
        assert np.concatenate(corrupt(ids, config, seed)).tolist().count(SPEAKER) == ids.count(SPEAKER)


@pytest.mark.parametrize("config", ONE_OF_EACH)
def test_special_tokens_stay(config):
    for seed in range(30):
        ids = dialogue(seed=seed)
        corrupted, *_ = corrupt(ids, config, seed)
        assert corrupted.tolist().count(SPEAKER) == ids.count(SPEAKER)


# === Denoising ===


def test_infilling_hides_its_share_and_keeps_the_rest_in_order():
    for seed in range(50):
        ids = words(97, seed)
        left = without(infill(np.array(ids), KINDS, 0.3, 3.0, np.random.default_rng(seed)), HIDE)
        assert len(left) == 97 - round(0.3 * 97)
        rest = iter(ids)
        assert all(token in rest for token in left)  # a subsequence


def test_the_lengths_of_spans_are_poissons():
    spans = collections.Counter()
    empty = 0
    for seed in range(300):
        ids = list(range(WORDS, WORDS + 200))  # all different, so that what is missing can be told
        noisy = infill(np.array(ids), KINDS, 0.15, 3.0, np.random.default_rng(seed)).tolist()
        ends = [WORDS - 1, *noisy, WORDS + 200]
        for before, token, after in zip(ends, ends[1:], ends[2:]):
            if token == HIDE and HIDE not in (before, after):
                spans[after - before - 1] += 1
                empty += after - before == 1
    total = sum(spans.values())
    share = np.array([spans[length] / total for length in range(6)])
    poisson = np.array([0.0498, 0.149, 0.224, 0.224, 0.168, 0.101])
    # The last span of a text is cut, which makes short ones a little more frequent.
    np.testing.assert_allclose(share, poisson, atol=0.03)
    assert empty > 0


def test_sentences_change_places_and_stay_whole():
    text = [[SPEAKER, 90, 91, STOP], [92, STOP, STOP], [93, 94, 95, STOP], [96]]
    orders = set()
    for seed in range(200):
        found = permute_sentences(np.concatenate(text), KINDS, np.random.default_rng(seed)).tolist()
        order = sorted(range(4), key=lambda number: found.index(text[number][0]))
        assert found == [token for number in order for token in text[number]]
        orders.add(tuple(order))
    assert len(orders) == 24


def test_deletion_takes_its_share_and_masking_masks_it():
    ids = words(200)
    (deleted,) = corrupt(ids, DenoisingConfig(permute=False, infill=0, delete=0.1))
    assert len(deleted) == 180
    rest = iter(ids)
    assert all(token in rest for token in deleted.tolist())
    (masked,) = corrupt(ids, DenoisingConfig(permute=False, infill=0, mask=0.1))
    assert len(masked) == 200
    assert [a for a, b in zip(masked.tolist(), ids) if a != b] == [HIDE] * 20


def test_rotation_begins_anywhere():
    ids = list(range(WORDS, WORDS + 5))
    found = {
        tuple(corrupt(ids, DenoisingConfig(permute=False, infill=0, rotate=True), seed)[0].tolist())
        for seed in range(50)
    }
    assert found == {tuple(ids[start:] + ids[:start]) for start in range(5)}


def test_no_corruption_is_the_text():
    assert corrupt(dialogue(), NOTHING)[0].tolist() == dialogue()


# === Span corruption ===


def rebuilt(corrupted, target):
    """Puts what was hidden back in the place of the sentinels."""
    hidden = {}
    for token in target:
        if token in KINDS.sentinels:
            hidden[name := token] = []
        else:
            hidden[name].append(token)
    *spans, last = hidden
    assert hidden[last] == []
    assert spans == [token for token in corrupted if token in KINDS.sentinels]
    return [token for place in corrupted for token in hidden.get(place, [place])]


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.8])
@pytest.mark.parametrize("mean_span", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("whole_words", [False, True])
def test_a_text_is_its_input_and_its_target(share, mean_span, whole_words):
    config = SpanCorruptionConfig(share=share, mean_span=mean_span, whole_words=whole_words)
    for seed in range(20):
        ids = dialogue(seed=seed)
        corrupted, target = (part.tolist() for part in corrupt(ids, config, seed))
        assert rebuilt(corrupted, target) == ids
        assert target[:1] == [SENTINEL]
        assert SPEAKER not in target
        if not whole_words:
            assert len(without(target, *KINDS.sentinels)) == round(share * (60 - ids.count(SPEAKER)))


def test_spans_have_the_mean_length_and_lie_apart():
    corrupted, target = corrupt(words(300), SpanCorruptionConfig())
    assert len(without(target, *KINDS.sentinels)) == 45
    places = [place for place, token in enumerate(corrupted) if token in KINDS.sentinels]
    assert len(places) == 15
    assert np.diff(places).min() > 1


def test_every_token_can_be_hidden():
    hidden = np.zeros(20)
    for seed in range(400):
        _, target = corrupt(range(WORDS, WORDS + 20), SpanCorruptionConfig(), seed)
        hidden[[token - WORDS for token in without(target, *KINDS.sentinels)]] += 1
    assert hidden.sum() == 3 * 400
    # The first and the last token are in one of the eighteen places of a span of three, those between in two or three.
    np.testing.assert_allclose(hidden, 400 * np.array([1, 2, *[3] * 16, 2, 1]) / 18, atol=25)


def test_more_spans_than_sentinels_are_refused():
    expected = r"^kinds\.sentinels: 80, and a text of 2000 tokens takes 101; give the vocabulary more"
    with pytest.raises(ValueError, match=expected):
        corrupt(words(2000), SpanCorruptionConfig())


# === Masked language models ===


def test_masking_chooses_its_share_and_splits_it_eighty_ten_ten():
    ids = np.array(words(20_000))
    corrupted, labels = corrupt(ids, MaskingConfig())
    chosen = labels != 0
    assert chosen.sum() == 3000
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(corrupted[~chosen], ids[~chosen])
    masked = corrupted[chosen] == HIDE
    same = corrupted[chosen] == ids[chosen]
    other = corrupted[chosen][~masked & ~same]
    np.testing.assert_allclose([masked.mean(), same.mean(), len(other) / 3000], [0.8, 0.1, 0.1], atol=0.02)
    assert not KINDS.fixed[other].any()
    assert len(set(other.tolist())) > 150


def test_nothing_special_is_guessed_and_something_always_is():
    for seed in range(30):
        ids = [SPEAKER, WORDS, SPEAKER]
        assert corrupt(ids, MaskingConfig(), seed)[1].tolist() == [0, WORDS, 0]


@pytest.mark.parametrize(
    "config", [MaskingConfig(masked=1, random=0, whole_words=True), DenoisingConfig(permute=False, whole_words=True)]
)
def test_words_are_hidden_whole_or_not_at_all(config):
    # Three words of two tokens, and one that a speaker's mark cuts off from its continuation.
    text = [WORDS, WORDS + 1, WORDS + 2, WORDS + 3, SPEAKER, WORDS + 5, WORDS + 6, WORDS + 7]
    seen = set()
    for seed in range(200):
        corrupted, *_ = corrupt(text, config, seed)
        seen.add(frozenset({*text} - {*corrupted.tolist()}))
    pairs = [{WORDS, WORDS + 1}, {WORDS + 2, WORDS + 3}, {WORDS + 5}, {WORDS + 6, WORDS + 7}]
    assert seen == set(map(frozenset, pairs))


# === Vocabularies ===


def test_the_kinds_are_read_from_a_vocabulary():
    texts = ["#Person1#: Two dogs play. Do they?", "They dig in the snow, the dogs' snow!"] * 4
    tokenizer = Tokenizer.train(texts, special=["#Person1#", "\n", MASK, *SENTINELS[:9]])
    kinds = TokenKinds.of(tokenizer)
    tokens = tokenizer.tokens(range(tokenizer.vocabulary_size))
    assert set(np.array(tokens)[kinds.fixed]) == {
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "#Person1#",
        "\n",
        MASK,
        *SENTINELS[:9],
    }
    assert set(np.array(tokens)[kinds.ends_sentence]) == {".", "?", "!", "\n"}
    assert tokenizer.tokens([kinds.mask, *kinds.sentinels]) == [MASK, *SENTINELS[:9]]
    (ids,) = tokenizer.encode([texts[1]])
    starts = "".join("|" * bool(kinds.starts_word[i]) + token for i, token in zip(ids, tokenizer.tokens(ids)))
    assert starts == "|▁They|▁dig|▁in|▁the|▁snow|,|▁the|▁dogs|'|▁snow|!"
    (ids,) = tokenizer.encode(texts[:1])
    corrupted, target = corrupt_spans(ids, kinds, SpanCorruptionConfig(share=0.3), np.random.default_rng(0))
    assert sum(i in kinds.sentinels for i in corrupted) + 1 == sum(i in kinds.sentinels for i in target)


def test_a_vocabulary_without_mask_or_sentinels_is_named():
    kinds = TokenKinds.of(Tokenizer.train(["Two dogs play."]))
    expected = r"^kinds\.mask: the vocabulary has no <mask>; train it with special=\[\.\.\., '<mask>'\]$"
    ids, rng = [5, 6, 7, 8], np.random.default_rng(0)
    with pytest.raises(ValueError, match=expected):
        denoise(ids, kinds, DenoisingConfig(), rng)
    with pytest.raises(ValueError, match=expected):
        mask_tokens(ids, kinds, MaskingConfig(), rng)
    with pytest.raises(ValueError, match=r"^kinds\.sentinels: 0, and a text of 4 tokens takes 2; "):
        corrupt_spans(ids, kinds, SpanCorruptionConfig(), rng)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenoisingConfig(infill=1.5), r"^infill: 1\.5; it takes a share between 0 and 1$"),
        (lambda: DenoisingConfig(mean_span=0.5), r"^mean_span: 0\.5; it takes a length of 1 or more$"),
        (lambda: SpanCorruptionConfig(share=-1), r"^share: -1\.0; it takes a share"),
        (lambda: SpanCorruptionConfig(mean_span=0), r"^mean_span: 0\.0; it takes a length"),
        (
            lambda: MaskingConfig(masked=0.8, random=0.3),
            r"^masked, random: 0\.8 and 0\.3; together they are at most 1$",
        ),
    ],
)
def test_a_share_that_is_none_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
