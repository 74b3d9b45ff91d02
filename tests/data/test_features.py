"""Features on disk: the encoder's own, found again, computed anew for whatever they depend on, and resumed."""

import io
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from zoo.data import features
from zoo.data.features import expected_images, image_features
from zoo.data.image_stream import image_batches
from zoo.data.images import ImageConfig, ImageError, decode, prepared
from zoo.models.vision_encoder import APPLICATIONS, VisionEncoderConfig, ViTConfig, vision_encoder

CONFIG = ImageConfig((16, 16))


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(seed) for seed in range(7)]


@pytest.fixture(scope="module")
def encoder(scramble):
    sizes = ViTConfig(8, 8, 2, 12, 1)
    return scramble(vision_encoder(VisionEncoderConfig("vit", (16, 16), vit=sizes)))


@pytest.fixture
def computed(monkeypatch):
    """How many images were decoded, batch by batch."""
    counts = []

    def counted(images, *arguments, start=0, **keywords):
        for batch in image_batches(images, *arguments, start=start, **keywords):
            counts.append(len(batch))
            yield batch

    monkeypatch.setattr(features, "image_batches", counted)
    return counts


def get(encoder, folder, images=IMAGES, config=CONFIG, **keywords):
    return image_features(encoder, images, config, folder, batch_size=2, progress=False, **keywords)


def expected(encoder, image):
    return keras.ops.convert_to_numpy(encoder(prepared(decode(image), CONFIG)[None]))[0]


def test_features_are_the_encoders_and_stay_on_disk(encoder, tmp_path, computed):
    found = get(encoder, tmp_path / "new" / "folder")
    assert found.array.shape == (7, 5, 8)
    assert found.array.dtype == np.float16
    assert isinstance(found.array, np.memmap)
    for row, image in zip(found.array, IMAGES):
        np.testing.assert_allclose(row, expected(encoder, image), atol=2e-3, rtol=2e-3)
    assert computed == [2, 2, 2, 2]
    again = get(encoder, tmp_path / "new" / "folder")
    np.testing.assert_array_equal(again.array, found.array)
    assert len(computed) == 4
    assert sorted(path.suffix for path in (tmp_path / "new" / "folder").iterdir()) == [".json", ".npy"]


def test_whatever_they_depend_on_makes_new_ones(encoder, tmp_path, scramble):
    path = tmp_path / "image.png"
    path.write_bytes(IMAGES[0])
    other_weights = scramble(vision_encoder(encoder.config), seed=1)
    folder = tmp_path / "features"
    calls = [
        lambda: get(encoder, folder),
        lambda: get(encoder, folder, mirrored=True),
        lambda: get(encoder, folder, IMAGES[:6]),
        lambda: get(encoder, folder, IMAGES[::-1]),
        lambda: get(encoder, folder, config=ImageConfig((16, 16), resample="nearest")),
        lambda: get(other_weights, folder),
        lambda: get(encoder, folder, [path]),
    ]
    found = [call().array.copy() for call in calls]
    assert len(list(folder.glob("*.npy"))) == len(calls)
    np.testing.assert_array_equal(found[3], found[0][::-1])
    assert np.abs(found[1] - found[0]).max() > 0.01
    path.write_bytes(IMAGES[1] + b"\0")
    np.testing.assert_array_equal(get(encoder, folder, [path]).array[0], found[0][1])


@pytest.mark.parametrize("note_every", [1, 2])
def test_a_stopped_run_goes_on_where_it_was(note_every, encoder, tmp_path, monkeypatch):
    whole = get(encoder, tmp_path / "whole").array
    monkeypatch.setattr(features, "_NOTE_EVERY", note_every)
    starts = []

    def stopped(images, *arguments, start=0, **keywords):
        starts.append(start)
        for number, batch in enumerate(image_batches(images, *arguments, start=start, **keywords)):
            if number == 3 and len(starts) == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(features, "image_batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        get(encoder, tmp_path / "parts")
    assert not list((tmp_path / "parts").glob("[!.]*.npy"))
    np.testing.assert_array_equal(get(encoder, tmp_path / "parts").array, whole)
    assert starts == [0, 6 if note_every == 1 else 4]


def test_a_second_process_waits_for_the_first(encoder, tmp_path, monkeypatch):
    arrays = []

    def first_finishes(file):
        if not arrays:
            arrays.append(None)
            arrays[0] = get(encoder, tmp_path).array  # what the other process does while this one waits

    monkeypatch.setattr(features, "_wait_for_lock", first_finishes)
    found = get(encoder, tmp_path).array
    np.testing.assert_array_equal(found, arrays[0])
    assert found.any()
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_the_file_is_locked_while_it_is_written(encoder, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def tried(images, *arguments, **keywords):
        with open(next(tmp_path.glob(".*.part")), "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield from image_batches(images, *arguments, **keywords)

    monkeypatch.setattr(features, "image_batches", tried)
    assert len(get(encoder, tmp_path).array) == len(IMAGES)


def test_a_note_without_its_file_counts_for_nothing(encoder, tmp_path):
    before = get(encoder, tmp_path).array.copy()
    next(tmp_path.glob("*.npy")).unlink()
    np.testing.assert_array_equal(get(encoder, tmp_path).array, before)


def test_damaged_images_are_errors_or_zero(encoder, tmp_path):
    images = [IMAGES[0], b"", IMAGES[2], IMAGES[3][:50]]
    with pytest.raises(ImageError, match=r"^image 1: the file is empty$"):
        get(encoder, tmp_path, images)
    for _ in range(2):  # computed, then found
        found = get(encoder, tmp_path, images, names=list("abcd"), skip_damaged=True)
        assert sorted(found.damaged) == [1, 3]
        assert str(found.damaged).startswith("2 damaged images skipped: b: the file is empty; d: ")
        assert found.array[[0, 2]].any(axis=(1, 2)).all()
        assert not found.array[[1, 3]].any()
    with pytest.raises(ImageError, match=r"^b: the file is empty$"):
        get(encoder, tmp_path, images)


def test_another_size_than_the_encoders_is_named(encoder, tmp_path):
    with pytest.raises(ValueError, match="images: there is none"):
        get(encoder, tmp_path, [])
    with pytest.raises(ValueError, match=r"config: size \[8, 16\]; the encoder takes \[16, 16\]"):
        get(encoder, tmp_path, config=ImageConfig((8, 16)))


# === What each kind expects ===


@pytest.mark.parametrize("kind", APPLICATIONS)
def test_images_are_prepared_as_keras_applications_does(kind):
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    theirs = sys.modules[getattr(keras.applications, kind).__module__].preprocess_input
    found = prepared(image, expected_images(VisionEncoderConfig(kind, (32, 40))))
    np.testing.assert_allclose(found, theirs(image[None].astype("float32"))[0], atol=1e-4)


def test_images_are_prepared_for_the_zoos_own_kinds():
    image = np.full((32, 32, 3), 191, np.uint8)
    found = prepared(image, expected_images(VisionEncoderConfig("efficientnet_lite0", (32, 32))))
    np.testing.assert_allclose(found, 0.5)
    found = prepared(image, expected_images(VisionEncoderConfig("vit", (32, 32))))
    np.testing.assert_allclose(found, 191 / 127.5 - 1, atol=1e-6)
