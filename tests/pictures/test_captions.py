"""Pictures of captions: every word's own map, over the whole image, in files that stand alone."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from zoo.pictures.captions import CaptionMaps, word_groups
from zoo.pictures.heads import Kind

WORDS = ["</script><script>", "$dog$", '"']


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (30, 60, 3), dtype=np.uint8)


@pytest.fixture
def maps(image):
    """Three words: one looks at the upper left, one at the lower right, one everywhere."""
    weights = np.zeros((3, 2, 4), np.float32)
    weights[0, 0, 0] = weights[1, 1, 3] = 0.4
    weights[2] = 0.1
    return CaptionMaps(image, WORDS, weights)


def covered(picture, image):
    """How far a picture is from the bare image, in its four corners."""
    difference = np.abs(picture.astype(float) - image).mean(axis=-1)
    height, width = difference.shape
    corners = difference[: height // 4, : width // 8], difference[: height // 4, -width // 8 :]
    corners += difference[-height // 4 :, : width // 8], difference[-height // 4 :, -width // 8 :]
    return [float(corner.mean()) for corner in corners]


# === Words ===


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["▁a", "▁dog", "s", "▁run"], [("a", [0]), ("dogs", [1, 2]), ("run", [3])]),
        (["a", "Ġblack", "ish", "Ġdog"], [("a", [0]), ("blackish", [1, 2]), ("dog", [3])]),
        (["a", "surf", "##board", "##er", "rides"], [("a", [0]), ("surfboarder", [1, 2, 3]), ("rides", [4])]),
        (["▁dog", ".", "▁", "cat"], [("dog", [0]), (".", [1]), ("cat", [2, 3])]),
        ([], []),
    ],
)
def test_tokens_are_joined_to_words(tokens, expected):
    assert word_groups(tokens) == expected


def test_heads_and_the_tokens_of_a_word_are_averaged(image, rng):
    tokens = ["▁a", "▁sail", "ing", "▁boat"]
    weights = {
        "decoder/block_0/self_attention": rng.random((2, 5, 5)),
        "decoder/block_0/cross_attention": rng.random((2, 5, 9)),  # a class token, 2 x 3 places, 2 tags
        "decoder/block_1/cross_attention": rng.random((4, 5, 9)),
    }
    first, last = (weights[f"decoder/block_{i}/cross_attention"][:, :, 1:7].mean(axis=0) for i in range(2))
    for layers, tokens_maps in (("last", last), ("all", (first + last) / 2)):
        found = CaptionMaps.from_tokens(image, tokens, weights, (2, 3), first=1, layers=layers)
        assert found.words == ["a", "sailing", "boat"]
        expected = np.stack([tokens_maps[0], tokens_maps[1:3].mean(axis=0), tokens_maps[3]])
        np.testing.assert_allclose(found.maps, expected.reshape(3, 2, 3), rtol=1e-6)


def test_every_head_is_kept(image, rng):
    tokens = ["▁a", "▁sail", "ing"]
    weights = {
        "feature_encoder/block_0/self_attention": rng.random((2, 7, 7)),
        "decoder/block_0/self_attention": rng.random((2, 4, 4)),
        "decoder/block_0/cross_attention": rng.random((2, 4, 9)),
    }
    encoder, decoder, cross = CaptionMaps.from_tokens(image, tokens, weights, (2, 3), first=1, start="[DEC]").kinds()
    assert (encoder.name, encoder.queries, encoder.keys) == ("encoder", None, None)
    assert (decoder.name, decoder.queries, decoder.keys) == ("decoder", [*tokens, "</s>"], ["[DEC]", *tokens])
    assert (cross.name, cross.queries, cross.keys) == ("cross", ["a", "sailing"], None)
    for kind, path, expected in [
        (encoder, "feature_encoder/block_0/self_attention", lambda w: w[:, 1:, 1:]),
        (decoder, "decoder/block_0/self_attention", lambda w: w),
        (cross, "decoder/block_0/cross_attention", lambda w: np.stack([w[:, 0], (w[:, 1] + w[:, 2]) / 2], 1)[..., 1:7]),
    ]:
        assert list(kind.layers) == [path]
        np.testing.assert_allclose(kind.layers[path], expected(weights[path]))


# === Pictures ===


def test_each_panel_shows_where_its_word_looks(maps, image):
    bare, first, second, third, *empty = maps.to_figure().axes
    np.testing.assert_array_equal(bare.images[0].get_array(), image)
    assert not any(panel.images for panel in empty)
    assert [panel.get_title() for panel in (first, second, third)] == WORDS
    seen = [covered(panel.images[0].get_array(), image) for panel in (first, second, third)]
    assert seen[0][0] < 15 < 30 < min(seen[0][1:])
    assert seen[1][3] < 15 < 30 < min(seen[1][:3])
    assert max(seen[2]) < 1


def test_one_head_may_be_drawn(image, maps):
    first, second = np.zeros((2, 3, 8), np.float32)
    first[:, 0], second[:, 7] = 0.4, 0.4
    among_words = Kind("decoder", WORDS, WORDS, {"decoder/block_0/self_attention": np.ones((2, 3, 3))})
    among_places = Kind(
        "encoder", None, None, {"encoder/block_0/self_attention": np.stack([first[:1].repeat(8, 0)] * 2)}
    )
    over_image = Kind("cross", WORDS, None, {"one": np.stack([first, second]), "two": np.stack([second, second])})
    heads = CaptionMaps(image, WORDS, maps.maps, [among_places, among_words, over_image])

    def corners(**chosen):
        """Where each panel but the bare picture is brightest."""
        panels = [panel for panel in heads.to_figure(**chosen).axes[1:] if panel.images]
        return [int(np.argmin(covered(panel.images[0].get_array(), image))) for panel in panels]

    assert corners(layer=1, head=1) == [0, 0, 0]
    assert corners(layer=1, head=2) == corners(head=1) == corners(head="mean") == [3, 3, 3]
    assert corners(kind="encoder") == [0, 0]
    assert [drawn.get_title() for drawn in heads.to_figure(kind="decoder").axes] == ["head 1", "head 2"]


def test_saving_a_picture(maps, tmp_path):
    maps.save(tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as found:
        assert found.size[0] > 600
    assert list(tmp_path.iterdir()) == [tmp_path / "maps.png"]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
def test_an_image_may_have_any_shape(maps, size, tmp_path):
    odd = CaptionMaps(np.full((*size, 3), 7, np.uint8), maps.words, maps.maps)
    odd.save(tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as found:
        assert max(found.size) < 2000
    assert len(odd.to_html()) < 100_000


# === Pages ===


def test_the_page_loads_nothing_but_itself(maps, read_page):
    text = maps.to_html()
    assert "http" not in text
    assert not re.search(r"url\(|@import|\bimport\b|fetch\(", text)
    page = read_page(text)
    assert page.references == []
    kind, data = page.data["image"]["source"].split(",")
    assert kind == "data:image/jpeg;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert found.shape == maps.image.shape


def test_the_page_holds_each_words_map(maps, read_page):
    page = read_page(maps.to_html())
    assert page.elements.count("script") == 1
    (kind,) = page.data["kinds"]
    assert (kind["queries"], kind["keys"]) == (WORDS, None)
    assert (page.data["image"]["height"], page.data["image"]["width"]) == (2, 4)
    ((heads,),) = (list(layers.values()) for layers in page.maps().values())
    np.testing.assert_allclose(heads, maps.maps.reshape(1, 3, 8), atol=1e-6)


def test_saving_a_page(maps, tmp_path):
    maps.save(tmp_path / "deep" / "maps.html")
    assert (tmp_path / "deep" / "maps.html").read_text(encoding="utf-8") == maps.to_html()
    assert "srcdoc" in maps._repr_html_()


# === Errors ===


def test_what_does_not_fit_is_named(maps, image, tmp_path):
    with pytest.raises(ValueError, match=r"maps: \(3, 2, 4\) for 2 words"):
        CaptionMaps(image, WORDS[:2], maps.maps)
    with pytest.raises(ValueError, match=r"image: float64 \(30, 60, 3\); it takes uint8"):
        CaptionMaps(image / 255, WORDS, maps.maps)
    with pytest.raises(ValueError, match=r"ends with '.pdf'; a picture ends with \.png or \.html"):
        maps.save(tmp_path / "maps.pdf")
    with pytest.raises(ValueError, match="heads: one looks at 4 places; the grid has 8"):
        CaptionMaps(image, WORDS, maps.maps, [Kind("cross", WORDS, None, {"one": np.ones((2, 3, 4))})])
    with pytest.raises(ValueError, match="no cross-attention"):
        CaptionMaps.from_tokens(image, ["▁a"], {"decoder/block_0/self_attention": np.ones((1, 1, 1))}, (1, 1))
    crossing = {"decoder/block_0/cross_attention": np.ones((1, 2, 9))}
    for tokens, grid in ((["▁a"] * 3, (3, 3)), (["▁a"], (3, 4))):
        with pytest.raises(ValueError, match="2 x 9 places"):
            CaptionMaps.from_tokens(image, tokens, crossing, grid)
