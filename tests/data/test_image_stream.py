"""Images in batches: in order, filled up, and with damaged ones named or noted."""

import io

import numpy as np
import pytest
from PIL import Image

from zoo.data.image_stream import Damaged, image_batches, without_damaged
from zoo.data.images import ImageConfig, ImageError, decode, prepared

CONFIG = ImageConfig((6, 8))


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(seed) for seed in range(5)]


def expected(number):
    return prepared(decode(IMAGES[number]), CONFIG)


def test_batches_are_in_order_and_filled_up(tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(IMAGES[1])
    images = [IMAGES[0], path, memoryview(IMAGES[2]), str(path), IMAGES[4]]
    batches = list(image_batches(images, CONFIG, 2))
    assert [batch.shape for batch in batches] == [(2, 6, 8, 3)] * 3
    for row, number in zip(np.concatenate(batches), (0, 1, 2, 1, 4)):
        np.testing.assert_array_equal(row, expected(number))
    assert not batches[2][1].any()


def test_a_start_leaves_images_out_and_a_mirror_turns_them_round():
    (batch,) = image_batches(IMAGES, CONFIG, 4, start=3, mirrored=True)
    np.testing.assert_array_equal(batch[1], expected(4)[:, ::-1])
    assert not batch[2:].any()


def test_a_damaged_image_is_an_error_or_is_noted():
    images = [IMAGES[0], b"", IMAGES[2][:60], IMAGES[3]]
    with pytest.raises(ImageError, match=r"^image 1: the file is empty$"):
        list(image_batches(images, CONFIG, 2))
    damaged = Damaged()
    names = ["a", "b", "c", "d"]
    rows = np.concatenate(list(image_batches(images, CONFIG, 2, names=names, damaged=damaged)))
    np.testing.assert_array_equal(rows[3], expected(3))
    assert not rows[1:3].any()
    assert sorted(damaged) == [1, 2]
    assert str(damaged).startswith("2 damaged images skipped: b: the file is empty; c: a damaged image: ")


def test_damaged_examples_are_counted_named_and_left_out():
    examples = [{"image": image, "name": f"{number}.png"} for number, image in enumerate(IMAGES)]
    assert without_damaged(examples, report=None) == examples
    for number in (0, 2, 3, 4):
        examples[number] = {"image": b"x" * number, "name": f"{number}.png"}
    said = []
    assert without_damaged(examples, said.append) == [examples[1]]
    problem = "not an image; it takes JPEG, PNG, GIF, WebP, BMP, TIFF or PPM"
    assert said == [f"4 damaged images skipped: 0.png: the file is empty; 2.png: {problem}; 3.png: {problem}; ..."]
    with pytest.raises(
        ImageError, match=r"^no image that can be read: 1 damaged image skipped: 0\.png: the file is empty$"
    ):
        without_damaged(examples[:1], said.append)
    with pytest.raises(ImageError, match=r"^no image that can be read: there are no examples$"):
        without_damaged([])
