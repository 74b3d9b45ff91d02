"""Pictures of attention: files that stand alone, whatever the tokens say."""

import json
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
    data = re.search(r"const maps = (.*);\n", page.script)[1]
    found = json.loads(data.replace("<\\/", "</"))
    assert found.keys() == PATHS.keys()
    for path, (queries, keys) in PATHS.items():
        assert (found[path]["queries"], found[path]["keys"]) == (queries, keys)
        np.testing.assert_allclose(found[path]["heads"], maps.maps[path], atol=6e-5)


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
        assert drawn.get_title() == f"{path}  head {i % 2 + 1}"
        np.testing.assert_array_equal(drawn.images[0].get_array(), maps.maps[path][i % 2])
        assert [label.get_text() for label in drawn.get_xticklabels()] == SOURCE
        assert [label.get_text() for label in drawn.get_yticklabels()] == WRITTEN


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
