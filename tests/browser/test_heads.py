"""The page of attention maps as its reader meets it: what is clicked and pointed at, and what is then to be seen."""

import numpy as np
import pytest

from zoo.pictures.attention import AttentionMaps
from zoo.pictures.captions import CaptionMaps
from zoo.pictures.heads import Kind

pytestmark = pytest.mark.browser

SOURCE = ["▁zwei", "<b>&amp;", "قطتان", "両方", "</s>"]
TARGET = ["<s>", "▁two", "\u2028"]
WRITTEN = ["▁two", "\u2028", "</s>"]
WORDS = ["a", "dog", "runs"]


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def attention(rng, heads, queries, keys, causal=False):
    """Random maps, no weight of which is too small to be drawn, but for those that are hidden."""
    weights = rng.uniform(0.1, 1, (heads, queries, keys)) * (np.tri(queries, keys) if causal else 1)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def maps(rng):
    found = {}
    for i in range(2):
        found[f"encoder/block_{i}/self_attention"] = attention(rng, 3, 5, 5)
        found[f"decoder/block_{i}/self_attention"] = attention(rng, 2, 3, 3, causal=True)
        found[f"decoder/block_{i}/cross_attention"] = attention(rng, 3, 3, 5)
    return AttentionMaps(SOURCE, TARGET, found)


@pytest.fixture
def page(browser, tmp_path):
    """Opens a picture's page."""

    def visit(picture, **chosen):
        picture.save(tmp_path / "maps.html", **chosen)
        browser.get((tmp_path / "maps.html").as_uri())

    return visit


@pytest.fixture
def all_of(browser):
    """Finds elements by CSS, in the order of the page."""
    return lambda css: browser.find_elements("css selector", css)


@pytest.fixture
def lines(browser, all_of):
    """Reads how strong the lines on the page are: (queries, keys), zero where there is none."""

    def read():
        strength = np.zeros([len(all_of(f"#{side} button")) for side in ("queries", "keys")])
        for line in browser.execute_script(
            "return [...document.querySelectorAll('line')].map("
            "line => [line.dataset.query, line.dataset.key, getComputedStyle(line).strokeOpacity].map(Number))"
        ):
            strength[int(line[0]), int(line[1])] += line[2]
        return strength

    return read


@pytest.fixture
def percents(all_of):
    """Reads the weights in writing beside a side's tokens."""
    return lambda side: [
        float(shown.text.removesuffix("%")) / 100 if shown.text else None for shown in all_of(f"#{side} small")
    ]


def close(found, expected):
    """A weight is kept in 255ths of its query's largest, and a line's strength in four digits."""
    np.testing.assert_allclose(found, expected, atol=1 / 510 + 1e-4)


def head_button(all_of, layer, head):
    (button,) = all_of(f"#heads button[data-layer='{layer}'][data-head='{head}']")
    return button


# === Layers, heads and kinds ===


def test_the_page_loads_nothing_else(page, maps, requested, tmp_path):
    page(maps)
    assert [address for address in requested() if not address.startswith("data:")] == [
        (tmp_path / "maps.html").as_uri()
    ]


def test_first_the_last_layers_heads_are_averaged(page, maps, lines, all_of):
    page(maps)
    expected = maps.maps["decoder/block_1/cross_attention"].mean(axis=0)
    close(lines(), expected)
    assert len(all_of("line")) == expected.size
    assert all_of("#title")[0].text == "Layer 2, mean of the heads"
    assert all_of("#path")[0].text == "decoder/block_1/cross_attention"


def test_a_click_on_a_head_shows_its_lines(page, maps, lines, all_of):
    page(maps)
    before = lines()
    for layer in range(2):
        for head in range(3):
            button = head_button(all_of, layer, head)
            assert button.get_attribute("aria-label") == f"Layer {layer + 1}, head {head + 1}"
            button.click()
            found = lines()
            close(found, maps.maps[f"decoder/block_{layer}/cross_attention"][head])
            assert np.abs(found - before).max() > 0.05
            assert [b.get_attribute("aria-label") for b in all_of("#heads [aria-pressed=true]")] == [
                f"Layer {layer + 1}, head {head + 1}"
            ]
            before = found
    head_button(all_of, 0, "mean").click()
    close(lines(), maps.maps["decoder/block_0/cross_attention"].mean(axis=0))


def test_lines_go_from_token_to_token(page, maps, browser):
    page(maps)
    ends = browser.execute_script(
        """
        const middle = button => {
          const box = button.getBoundingClientRect();
          return (box.top + box.bottom) / 2;
        };
        return [...document.querySelectorAll("line")].map(line => {
          const svg = document.querySelector("#lines").getBoundingClientRect();
          const query = document.querySelectorAll("#queries button")[line.dataset.query];
          const key = document.querySelectorAll("#keys button")[line.dataset.key];
          return [line.y1.baseVal.value + svg.top - middle(query), line.y2.baseVal.value + svg.top - middle(key),
            line.x1.baseVal.value + svg.left - query.getBoundingClientRect().right,
            line.x2.baseVal.value + svg.left - key.getBoundingClientRect().left];
        });
        """
    )
    assert len(ends) == 15
    assert np.abs(ends).max() < 1


def test_kinds_have_tokens_and_heads_of_their_own(page, maps, lines, all_of):
    page(maps)
    expected = {"encoder": (SOURCE, SOURCE, 8), "decoder": (WRITTEN, TARGET, 6), "cross": (WRITTEN, SOURCE, 8)}
    assert [button.text for button in all_of("#kinds button")] == list(expected)
    for button in all_of("#kinds button"):
        name = button.text
        button.click()
        queries, keys, heads = expected[name]
        assert [token.get_attribute("title") for token in all_of("#queries button")] == queries
        assert [token.get_attribute("title") for token in all_of("#keys button")] == keys
        assert len(all_of("#heads button")) == heads
        path = "decoder/block_1/cross_attention" if name == "cross" else f"{name}/block_1/self_attention"
        close(lines(), maps.maps[path].mean(axis=0))
        head_button(all_of, 0, 1).click()
        close(lines(), maps.maps[path.replace("1", "0")][1])


def test_the_page_may_begin_elsewhere(page, maps, lines, all_of):
    page(maps, kind="encoder", layer=1, head=3)
    close(lines(), maps.maps["encoder/block_0/self_attention"][2])
    assert [b.get_attribute("aria-label") for b in all_of("#heads [aria-pressed=true]")] == ["Layer 1, head 3"]


def test_one_kind_needs_no_switch(page, rng, all_of):
    page(AttentionMaps(SOURCE, [], {"encoder/block_0/self_attention": attention(rng, 2, 5, 5)}))
    assert not all_of("#kinds")[0].is_displayed()
    assert len(all_of("line")) == 25


def test_layers_may_have_different_numbers_of_heads(page, rng, lines, all_of):
    found = {f"encoder/block_{i}/self_attention": attention(rng, 3 - 2 * i, 5, 5) for i in range(2)}
    page(AttentionMaps(SOURCE, [], found))
    assert [b.get_attribute("aria-label") for b in all_of("#heads button")] == [
        "Layer 1, head 1", "Layer 1, head 2", "Layer 1, head 3", "Layer 1, mean of the heads",
        "Layer 2, head 1", "Layer 2, mean of the heads",
    ]  # fmt: skip
    head_button(all_of, 1, 0).click()
    close(lines(), found["encoder/block_1/self_attention"][0])


def test_a_thumbnail_is_its_heads_map(page, maps, browser, all_of):
    page(maps)
    for layer, head in ((0, 2), (1, 0)):
        shown = browser.execute_script(
            "const c = arguments[0].querySelector('canvas');"
            "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]",
            head_button(all_of, layer, head),
        )
        assert shown[:2] == [5, 3]
        expected = maps.maps[f"decoder/block_{layer}/cross_attention"][head]
        opacity = np.reshape(shown[2], (3, 5, 4))[..., 3] / 255
        np.testing.assert_allclose(opacity, expected / expected.max(), atol=0.02)


# === Tokens ===


def test_tokens_are_text(page, maps, all_of):
    page(maps, kind="encoder")
    assert [token.text for token in all_of("#keys bdi")] == SOURCE
    assert all_of("#tokens b") == []
    page(maps)
    assert [token.text for token in all_of("#queries bdi")] == ["▁two", "U+2028", "</s>"]


def test_pointing_at_a_token_shows_its_lines_and_weights_alone(page, maps, lines, percents, hover, all_of):
    page(maps, layer=1, head=1)
    weights = maps.maps["decoder/block_0/cross_attention"][0]
    assert percents("queries") + percents("keys") == [None] * 8
    hover(all_of("#queries button")[0])
    close(lines(), weights * [[1], [0], [0]])
    close(percents("keys"), weights[0])
    assert percents("queries") == [None] * 3
    best = int(weights[0].argmax())
    assert all_of("#says")[0].text.startswith(f"▁two looks at {SOURCE[best]} (")
    hover(all_of("#keys button")[3])
    close(lines(), weights * [0, 0, 0, 1, 0])
    close(percents("queries"), weights[:, 3])
    assert all_of("#says")[0].text.startswith("両方 is looked at by ")
    hover(all_of("#title")[0])
    close(lines(), weights)


def test_a_click_keeps_a_token_from_head_to_head(page, maps, lines, percents, hover, press, all_of):
    page(maps, layer=1, head=1)
    all_of("#queries button")[1].click()
    for layer, head in ((0, 1), (1, 2)):
        head_button(all_of, layer, head).click()
        weights = maps.maps[f"decoder/block_{layer}/cross_attention"][head]
        close(lines(), weights * [[0], [1], [0]])
        close(percents("keys"), weights[1])
    assert [b.get_attribute("title") for b in all_of("#view [aria-pressed=true]")] == ["\u2028"]
    press("ESCAPE")
    close(lines(), weights)
    all_of("#queries button")[1].click()
    all_of("#queries button")[1].click()
    hover(all_of("#title")[0])
    close(lines(), weights)


def test_keys_reach_everything(page, maps, lines, press, all_of):
    page(maps)
    press("TAB", "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_LEFT", "ENTER")
    assert [b.text for b in all_of("#kinds [aria-pressed=true]")] == ["decoder"]
    press("TAB", "ARROW_DOWN", "ARROW_RIGHT", "SPACE")
    close(lines(), maps.maps["decoder/block_1/self_attention"][1])
    press("TAB", "ARROW_DOWN")
    found = maps.maps["decoder/block_1/self_attention"][1]
    close(lines(), found * [[0], [1], [0]])


def test_of_many_lines_the_strongest_are_drawn(page, rng, all_of, lines, hover):
    weights = rng.uniform(0.5, 1, (1, 64, 64))
    weights[0, 5, 50] = 30
    weights = (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)
    page(AttentionMaps([f"▁{i}" for i in range(64)], [], {"encoder/block_0/self_attention": weights}))
    found = lines()
    assert np.count_nonzero(found) == 2000
    np.testing.assert_allclose(found[5, 50], weights[0, 5, 50], atol=0.002)
    assert weights[0][found > 0].min() > weights[0][found == 0].max() - 2e-4
    hover(all_of("#queries button")[3])
    assert np.count_nonzero(lines()) == 64


# === Pictures ===


@pytest.fixture
def caption(rng):
    """Three words over a grid of 2 x 3 places: word w looks at place w by head 1, and at place 5 - w by head 2."""
    crossing = np.full((2, 3, 6), 0.02, np.float32)
    for word in range(3):
        crossing[0, word, word] = crossing[1, word, 5 - word] = 0.9
    kinds = [
        Kind("encoder", None, None, {"encoder/block_0/self_attention": np.eye(6, dtype=np.float32)[None, ::-1]}),
        Kind("decoder", WORDS, WORDS, {"decoder/block_0/self_attention": attention(rng, 2, 3, 3, causal=True)}),
        Kind("cross", WORDS, None, {"decoder/block_0/cross_attention": crossing}),
    ]
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    return CaptionMaps(image, WORDS, crossing[0].reshape(3, 2, 3), kinds)


@pytest.fixture
def brightest(browser):
    """Finds the place of the grid where the picture is covered least, in the middle of each place."""

    def place():
        covered = browser.execute_script(
            """
            const canvas = document.querySelector("#picture canvas"), context = canvas.getContext("2d");
            return [...Array(6).keys()].map(place => {
              const column = place % 3, row = Math.floor(place / 3);
              const x = (column + 0.5) / 3 * canvas.width, y = (row + 0.5) / 2 * canvas.height;
              return context.getImageData(Math.floor(x), Math.floor(y), 1, 1).data[3];
            });
            """
        )
        return int(np.argmin(covered))

    return place


def test_the_picture_is_lit_where_a_word_looks(page, caption, brightest, hover, all_of):
    page(caption, head=1)
    assert not all_of("#tokens")[0].is_displayed()
    assert [word.text for word in all_of("#words button")] == WORDS
    for word in range(3):
        hover(all_of("#words button")[word])
        assert brightest() == word
    all_of("#words button")[1].click()
    head_button(all_of, 0, 1).click()
    assert brightest() == 4
    assert all_of("#says")[0].text.startswith("dog looks at row 2 column 2 (90.0")


def test_pointing_at_the_picture_marks_who_looks_there(page, caption, hover, all_of):
    page(caption, head=1)
    cover = all_of("#picture canvas")[0]
    hover(cover, right=round(cover.size["width"] / 3), down=round(-cover.size["height"] / 4))
    assert all_of("#says")[0].text.startswith("row 1 column 3 is looked at by runs (90.0")
    assert all_of("#spot")[0].is_displayed()
    spot, box = all_of("#spot")[0].rect, cover.rect
    np.testing.assert_allclose(
        [spot["x"] - box["x"], spot["y"] - box["y"], spot["width"], spot["height"]],
        [box["width"] * 2 / 3, 0, box["width"] / 3, box["height"] / 2],
        atol=1,
    )


def test_places_of_a_picture_look_at_others(page, caption, hover, brightest, all_of):
    page(caption, kind="encoder")
    assert not all_of("#words")[0].is_displayed()
    cover = all_of("#picture canvas")[0]
    hover(cover, right=round(cover.size["width"] / 3), down=round(-cover.size["height"] / 4))
    assert brightest() == 3
    assert all_of("#says")[0].text == "row 1 column 3 looks at row 2 column 1 (100.0 %)"


def test_a_captions_words_have_lines_among_them(page, caption, lines, all_of):
    page(caption)
    all_of("#kinds button")[1].click()
    close(lines(), caption.heads[1].layers["decoder/block_0/self_attention"].mean(axis=0))
    assert not all_of("#picture")[0].is_displayed()


# === Notebooks, and light and dark ===


def test_views_in_one_page_do_not_disturb_each_other(browser, maps, caption, lines, all_of, tmp_path):
    cells = [maps._repr_html_(), maps._repr_html_(), caption._repr_html_()]
    (tmp_path / "notebook.html").write_text("<!doctype html><meta charset='utf-8'>" + "".join(cells), encoding="utf-8")
    browser.get((tmp_path / "notebook.html").as_uri())
    frames = all_of("iframe")
    browser.switch_to.frame(frames[1])
    head_button(all_of, 0, 1).click()
    close(lines(), maps.maps["decoder/block_0/cross_attention"][1])
    browser.switch_to.default_content()
    browser.switch_to.frame(frames[0])
    close(lines(), maps.maps["decoder/block_1/cross_attention"].mean(axis=0))
    browser.switch_to.default_content()
    browser.switch_to.frame(frames[2])
    assert len(all_of("#words button")) == 3


def test_the_page_is_dark_where_the_reader_likes_it(page, maps, browser):
    seen = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page(maps)
        style = browser.execute_script(
            "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        )
        seen.append([np.mean([float(part) for part in color[4:-1].split(",")]) for color in style])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    (light, text_on_light), (dark, text_on_dark) = seen
    assert light > 240 > 60 > text_on_light
    assert dark < 40 < 200 < text_on_dark


def test_the_page_fits_a_narrow_cell(page, maps, caption, browser):
    size = {"width": 480, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for picture in (maps, caption):
        page(picture)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 480
