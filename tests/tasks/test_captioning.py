"""A captioner learns coloured shapes, writes of files, bytes and arrays alike, and survives its folder."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.config import ConfigError
from zoo.data.augmentation import AugmentationConfig
from zoo.data.caption_batches import CaptionBatchingConfig
from zoo.data.images import ImageConfig, ImageError
from zoo.generation import GenerationConfig
from zoo.models.vision_encoder import VisionEncoderConfig, ViTConfig
from zoo.models.vision_encoder_decoder import VisionEncoderDecoderConfig
from zoo.tasks.captioning import Captioning, CaptioningRecipe, plain
from zoo.training import OptimizerConfig, TrainingConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SIDES = ("top", "bottom")


def picture(colour, side):
    """A grey square whose upper or lower half has a colour."""
    image = np.full((40, 40, 3), 128, np.uint8)
    image[slice(0, 20) if side == "top" else slice(20, 40)] = COLOURS[colour]
    return image


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


EXAMPLES = [
    {
        "image": encoded(picture(colour, side)),
        "name": f"{colour}-{side}.png",
        "captions": [f"The {side} is {colour} .", f"A {colour} {side}"],
    }
    for colour in COLOURS
    for side in SIDES
]
RECIPE = CaptioningRecipe(
    vision=VisionEncoderConfig(
        kind="vit", image_size=(32, 32), vit=ViTConfig(16, 16, 2, 32, 1, epsilon=1e-6, class_token=False)
    ),
    images=ImageConfig(size=(32, 32)),
    model=VisionEncoderDecoderConfig(0, width=16, num_heads=2, feedforward_dim=32, num_decoder_layers=1, dropout=0.0),
    batching=CaptionBatchingConfig(buckets=(24,), batch_size=6),
    training=TrainingConfig(
        steps=120,
        evaluate_every=60,
        save_every=60,
        log_every=60,
        average_decay=0.0,
        label_smoothing=0.0,
        monitor="bleu1",
        jit=False,
        optimizer=OptimizerConfig(learning_rate=0.02, schedule="cosine", warmup_steps=10),
    ),
    generation=GenerationConfig(beams=2, max_length=10),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner")
    task = Captioning.from_examples(RECIPE, EXAMPLES)
    task.generator.jit = False
    task.fit(EXAMPLES, EXAMPLES, out=folder, logdir=folder / "logs")
    return task, folder


def test_a_captioner_learns_colours_and_places(trained):
    task, _ = trained
    captions = task([example["image"] for example in EXAMPLES])
    assert captions == [
        caption
        for example, caption in zip(EXAMPLES, captions)
        if caption in [plain(text) for text in example["captions"]]
    ]
    scores = task.evaluate(EXAMPLES)
    assert scores["bleu1"] > 99
    assert scores["distinct"] == 100


def test_files_bytes_and_arrays_are_the_same(trained, tmp_path):
    task, _ = trained
    image = picture("red", "top")
    Image.fromarray(image).save(tmp_path / "red.png")
    expected = task(image)
    assert task(encoded(image)) == task(tmp_path / "red.png") == task(str(tmp_path / "red.png")) == expected
    assert task([image, encoded(picture("blue", "bottom")), tmp_path / "red.png"])[::2] == [expected] * 2


def test_a_caption_may_be_begun(trained):
    task, _ = trained
    image = picture("green", "bottom")
    assert task(image, beginnings="The bottom") == "the bottom is green"
    assert task([image], beginnings=["a"]) == ["a green bottom"]
    assert len(task(image, n_best=2)) == 2


def test_a_captioner_survives_its_folder(trained):
    task, folder = trained
    loaded = zoo.load(folder)
    assert type(loaded) is Captioning
    loaded.generator.jit = False
    images = [example["image"] for example in EXAMPLES]
    assert loaded(images) == task(images)


def test_tensorboard_shows_captions_on_their_images(trained, events):
    task, folder = trained
    shown = events(folder / "logs/dev")
    assert [step for step, _ in shown["images"]["attention/1"]] == [60, 120]
    caption = task(EXAMPLES[1]["image"], beams=1)
    _, text = shown["text"]["samples/2"][-1]
    assert f"\n\n**output**: {caption}\n\n" in text.item().decode()
    _, (width, height, _) = shown["images"]["attention/2"][-1]
    figure = task.attention_maps(EXAMPLES[1]["image"], caption).to_figure("cross", 1, "mean")
    assert [int(width), int(height)] == [round(90 * side) for side in figure.get_size_inches()]
    assert {"images_per_second", "tokens_per_second"} <= set(events(folder / "logs/train")["scalars"])


def test_features_are_kept_where_the_encoder_is_frozen(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    recipe = dataclasses.replace(RECIPE, trained="none", training=dataclasses.replace(RECIPE.training, steps=60))
    task = Captioning.from_examples(recipe, EXAMPLES)
    task.generator.jit = False
    before = [np.array(weight) for weight in task.vision.weights]
    task.fit(EXAMPLES, EXAMPLES)
    assert len(list(tmp_path.glob("features/*.npy"))) == 2  # as they are, and mirrored
    for weight, old in zip(task.vision.weights, before):
        np.testing.assert_array_equal(np.array(weight), old)
    assert task.score_while_training(EXAMPLES) == pytest.approx(task.evaluate(EXAMPLES, beams=1), abs=0.5)


def test_features_of_changed_images_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    recipe = dataclasses.replace(RECIPE, trained="none", augmentation=AugmentationConfig(crop=0.3))
    task = Captioning.from_examples(recipe, EXAMPLES)
    first, again, later = (next(iter(task.batches(EXAMPLES).epoch(epoch)))["features"] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(later - first).max() > 0.1
    assert not list(tmp_path.rglob("*.npy"))


def test_what_is_no_image_is_named(trained, tmp_path):
    task, _ = trained
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        task.check(str(tmp_path / "text.jpg"))
    with pytest.raises(ImageError, match=r"text\.jpg"):
        task([picture("red", "top"), tmp_path / "text.jpg"])
    with pytest.raises(ImageError, match="input 2"):
        task([picture("red", "top"), b"nothing"])


def test_recipes_that_contradict_themselves_are_refused():
    with pytest.raises(ConfigError, match=r"images\.size: \[32, 32\]; vision\.image_size is \[224, 224\]"):
        dataclasses.replace(RECIPE, vision=VisionEncoderConfig())
    vit = dataclasses.replace(RECIPE.vision.vit, class_token=True)
    with_class_token = dataclasses.replace(RECIPE, vision=dataclasses.replace(RECIPE.vision, vit=vit))
    with pytest.raises(ConfigError, match="class_token"):
        Captioning.from_examples(with_class_token, EXAMPLES)


def test_demo_images_come_from_installed_packages(trained):
    _, folder = trained
    shown = zoo.load(folder)
    shown.card = {"demo": ["matplotlib/mpl-data/sample_data/grace_hopper.jpg", "sklearn/datasets/images/china.jpg"]}
    shown.generator.jit = False
    for path in shown.demo:
        shown.check(path)
    assert len(shown(shown.demo)) == 2
