"""Pictures of attention: files that stand alone, whatever the tokens say."""

import re

import numpy as np
import pytest

from zoo.pictures.attention import AttentionMaps

SOURCE = ["▁a", "</script><script>", '"', "<b>&amp;", "</s>"]
TARGET = ["<s>", "▁eins", "\u2028"]
WRITTEN = ["▁eins", "\u2028", "</s>"]
PATHS = {
    "encoder/block_0/self_attention": (SOURCE, SOURCE),
    "decoder/block_0/self_attention": (WRITTEN, TARGET),
    "decoder/block_0/cross_attention": (WRITTEN, SOURCE),
    "decoder/block_1/cross_attention": (WRITTEN, SOURCE),
}


@pytest.fixture
def maps(rng):
    weights = {}
    for path, (queries, keys) in PATHS.items():
        values = rng.random((2, len(queries), len(keys)))
        weights[path] = (values / values.sum(axis=-1, keepdims=True)).astype(np.float32)
    return AttentionMaps(SOURCE, TARGET, weights)


def test_a_decoders_queries_are_named_after_what_comes_of_them(maps):
    for path, (queries, keys) in PATHS.items():
        assert maps.tokens(path) == (queries, keys)


def test_the_page_loads_nothing(maps, read_page):
    text = maps.to_html()
    assert "http" not in text
    assert not re.search(r"url\(|@import|\bimport\b|fetch\(", text)
    assert read_page(text).references == []


def test_a_token_cannot_break_out_of_the_page(maps, read_page):
    page = read_page(maps.to_html())
    assert page.elements.count("script") == 1
    assert "b" not in page.elements
    tokens = {kind["name"]: (kind["queries"], kind["keys"]) for kind in page.data["kinds"]}
    assert tokens == {"encoder": (SOURCE, SOURCE), "decoder": (WRITTEN, TARGET), "cross": (WRITTEN, SOURCE)}


def test_the_page_holds_every_weight_in_a_byte(maps, read_page):
    found = read_page(maps.to_html()).maps()
    assert {kind: list(layers) for kind, layers in found.items()} == {
        "encoder": ["encoder/block_0/self_attention"],
        "decoder": ["decoder/block_0/self_attention"],
        "cross": ["decoder/block_0/cross_attention", "decoder/block_1/cross_attention"],
    }
    for layers in found.values():
        for path, heads in layers.items():
            step = maps.maps[path].max(axis=-1, keepdims=True) / 255
            assert (np.abs(heads - maps.maps[path]) <= 0.501 * step).all()


def test_small_weights_are_kept_too(read_page):
    weights = np.array([[[1e-4, 2e-4, 0], [0, 0, 0]]], np.float32)
    path = "decoder/block_0/cross_attention"
    found = read_page(AttentionMaps(["a", "b", "c"], ["<s>", "d"], {path: weights}).to_html()).maps()
    np.testing.assert_allclose(found["cross"][path], weights, atol=5e-7)


def test_a_long_text_makes_no_large_page(rng):
    weights = rng.random((12, 64, 64))
    maps = AttentionMaps(["▁token"] * 64, [], {f"encoder/block_{i}/self_attention": weights for i in range(6)})
    assert len(maps.to_html()) < 450_000


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, (2, 1, "mean")),
        ({"kind": "encoder"}, (0, 0, "mean")),
        ({"kind": "cross", "layer": 1, "head": 2}, (2, 0, 1)),
        ({"head": "mean"}, (2, 1, "mean")),
    ],
)
def test_the_page_begins_with_what_is_chosen(maps, chosen, expected, read_page):
    data = read_page(maps.to_html(**chosen)).data
    assert (data["kind"], data["layer"], data["head"]) == expected


def test_saving_a_page(maps, tmp_path):
    maps.save(tmp_path / "deep" / "maps.html")
    assert (tmp_path / "deep" / "maps.html").read_text(encoding="utf-8") == maps.to_html()


def test_saving_a_picture(maps, tmp_path):
    maps.save(str(tmp_path / "maps.png"))
    data = (tmp_path / "maps.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data[12:16] == b"IHDR"
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert width > 200
    assert height > 200
    assert list(tmp_path.iterdir()) == [tmp_path / "maps.png"]


def test_the_picture_shows_each_layers_cross_attention(maps):
    axes = maps.to_figure().axes
    assert len(axes) == 4  # two layers of two heads
    for i, drawn in enumerate(axes):
        path = f"decoder/block_{i // 2}/cross_attention"
        assert drawn.get_title() == (f"head {i + 1}" if i < 2 else "")
        assert drawn.get_ylabel().replace("\n", "") == ("" if i % 2 else path)
        np.testing.assert_array_equal(drawn.images[0].get_array(), maps.maps[path][i % 2])
        # Tokens stand beside the outer panels alone.
        assert [label.get_text() for label in drawn.get_xticklabels()] == ([] if i < 2 else SOURCE)
        assert [label.get_text() for label in drawn.get_yticklabels()] == ([] if i % 2 else WRITTEN)


@pytest.mark.parametrize(
    ("chosen", "titles", "expected"),
    [
        ({"layer": 1}, ["head 1", "head 2"], lambda found: found["decoder/block_0/cross_attention"]),
        ({"layer": 2, "head": 2}, ["head 2"], lambda found: found["decoder/block_1/cross_attention"][1:]),
        ({"kind": "encoder", "head": 1}, ["head 1"], lambda found: found["encoder/block_0/self_attention"][:1]),
        (
            {"kind": "decoder", "head": "mean"},
            ["mean of the heads"],
            lambda found: [found["decoder/block_0/self_attention"].mean(axis=0)],
        ),
    ],
)
def test_the_picture_shows_what_is_chosen(maps, chosen, titles, expected):
    axes = maps.to_figure(**chosen).axes
    assert [drawn.get_title() for drawn in axes] == titles
    for drawn, weights in zip(axes, expected(maps.maps), strict=True):
        np.testing.assert_array_equal(drawn.images[0].get_array(), weights)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"kind": "crosss"}, r"kind: 'crosss'; this model has encoder, decoder, cross$"),
        ({"layer": 3}, r"layer: 3; cross has layers 1 to 2$"),
        ({"layer": 0}, r"layer: 0; cross has layers 1 to 2$"),
        ({"kind": "encoder", "head": 3}, r"head: 3; encoder has heads 1 to 2, and 'mean'$"),
        ({"head": "all"}, r"head: 'all'; cross has heads 1 to 2, and 'mean'$"),
    ],
)
@pytest.mark.parametrize("name", ["maps.png", "maps.html"])
def test_what_is_not_there_is_named(maps, chosen, says, name, tmp_path):
    with pytest.raises(ValueError, match=says):
        maps.save(tmp_path / name, **chosen)
    assert list(tmp_path.iterdir()) == []


def test_layers_may_have_different_numbers_of_heads(maps):
    pruned = {**maps.maps, "decoder/block_1/cross_attention": maps.maps["decoder/block_1/cross_attention"][:1]}
    axes = AttentionMaps(SOURCE, TARGET, pruned).to_figure().axes
    assert [len(drawn.images) for drawn in axes] == [1, 1, 1, 0]


def test_dollar_signs_begin_no_formula(tmp_path):
    weights = np.eye(2, dtype=np.float32)[None]
    AttentionMaps(["$a_$", "$\\frac$"], [], {"encoder/block_0/self_attention": weights}).save(tmp_path / "maps.png")


def test_without_cross_attention_all_maps_are_drawn(maps, tmp_path):
    path = "encoder/block_0/self_attention"
    alone = AttentionMaps(SOURCE, [], {path: maps.maps[path]})
    assert len(alone.to_figure().axes) == 2
    alone.save(tmp_path / "maps.png")


@pytest.mark.parametrize("name", ["maps.pdf", "maps", "maps.html.gz"])
def test_another_ending_is_an_error(maps, name, tmp_path):
    with pytest.raises(ValueError, match=r"a picture ends with \.png or \.html$"):
        maps.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_maps_that_do_not_fit_their_tokens_are_named():
    path = "decoder/block_0/cross_attention"
    says = r"maps: decoder/block_0/cross_attention is \(2, 2, 3\); it takes \(heads, 2, 2\)"
    with pytest.raises(ValueError, match=says):
        AttentionMaps(["a", "b"], ["<s>", "c"], {path: np.ones((2, 2, 3))})
    with pytest.raises(ValueError, match="maps: none; no layer of this model has weights"):
        AttentionMaps(["a", "b"], [], {})


def test_a_notebook_shows_the_page_in_a_frame(maps, read_page):
    page = read_page(maps._repr_html_())
    assert page.elements == ["iframe"]
    assert page.frame == maps.to_html()
