"""Every kind of task learns the same in parts, with recomputed blocks, and with logits in blocks."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tasks.test_captioning import encoded
from zoo.data.caption_batches import CaptionBatchingConfig
from zoo.data.images import ImageConfig
from zoo.data.pipeline import BatchingConfig
from zoo.data.texts import TextBatchingConfig
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.models.vision_encoder import VisionEncoderConfig, ViTConfig
from zoo.models.vision_encoder_decoder import VisionEncoderDecoderConfig
from zoo.tasks.captioning import Captioning, CaptioningRecipe
from zoo.tasks.multitask import Multitask, MultitaskRecipe
from zoo.tasks.translation import Translation
from zoo.training import TrainingConfig, make_train_step

SAVING = TrainingConfig(accumulate=2, remat=True)
ORDERS = [{"text": "bring one soup", "tags": "O O B-thing", "intent": "bring"}, {"text": "where am i", "intent": "ask"}]
ORDERS += [{"text": "bring one soup and bread now", "tags": "O O B-thing O B-thing O"}]


def image(colour):
    return encoded(np.full((8, 8, 3), colour, np.uint8))


IMAGES = [
    {"image": image(10), "name": "dark", "captions": ["dark", "a very dark square"]},
    {"image": image(200), "name": "bright", "captions": ["bright"]},
    {"image": image(100), "name": "grey", "captions": ["a grey square, neither dark nor bright"]},
]


def translator(recipe, pairs, training, **changes):
    batching = BatchingConfig(buckets=((32, 32),), batch_tokens=128, pack=False)
    recipe = dataclasses.replace(recipe(copying="coverage" in changes), batching=batching, training=training, **changes)
    return Translation.from_examples(recipe, pairs), pairs


def captioner(training):
    sizes = {"width": 16, "num_heads": 2, "feedforward_dim": 16, "num_decoder_layers": 1, "dropout": 0.0}
    vit = ViTConfig(4, 16, 2, 16, 1, epsilon=1e-6, class_token=False)
    recipe = CaptioningRecipe(
        vision=VisionEncoderConfig(kind="vit", image_size=(8, 8), vit=vit),
        images=ImageConfig(size=(8, 8)),
        model=VisionEncoderDecoderConfig(0, **sizes),
        batching=CaptionBatchingConfig(buckets=(32,), batch_size=4),
        trained="all",
        training=training,
    )
    return Captioning.from_examples(recipe, IMAGES), IMAGES


def multitask(training):
    sizes = EncoderConfig(vocabulary_size=0, width=16, num_heads=2, feedforward_dim=16, num_layers=1, dropout=0.0)
    heads = {"tags": HeadConfig(kind="tags", dropout=0.0), "intent": HeadConfig(dropout=0.0)}
    recipe = MultitaskRecipe(
        model=EncoderHeadsConfig(sizes, heads),
        batching=TextBatchingConfig(buckets=(16,), batch_size=4),
        loss_weighting="uncertainty",
        training=training,
    )
    return Multitask.from_examples(recipe, ORDERS), ORDERS


def one_step(make, training):
    task, examples = make(training)
    batch = next(iter(task.batches(examples).epoch(0)))
    batch = {name: tf.convert_to_tensor(value) for name, value in batch.items()} | {"progress": tf.constant(0.5)}
    step = make_train_step(
        task.trained_model,
        keras.optimizers.SGD(0.1),
        task.loss,
        clip_norm=100.0,
        loss_variables=task.loss_variables,
        jit=False,
        accumulate=training.accumulate,
        remat=training.remat,
    )
    report = {name: float(value) for name, value in step(batch).items()}
    return report, [np.array(v) for v in [*task.trained_model.trainable_variables, *task.loss_variables]]


@pytest.mark.parametrize("kind", ["translator", "one that copies", "captioner", "multitask"])
def test_a_task_learns_the_same(kind, recipe, pairs):
    make, fused = {
        "translator": (lambda training: translator(recipe, pairs[:8], training), True),
        "one that copies": (lambda training: translator(recipe, pairs[:8], training, coverage=0.5), None),
        "captioner": (captioner, True),
        "multitask": (multitask, None),
    }[kind]
    report, weights = one_step(make, TrainingConfig())
    saving_report, saving_weights = one_step(make, dataclasses.replace(SAVING, fused_loss=fused))
    assert saving_report == pytest.approx(report, rel=1e-4)
    for mine, expected in zip(saving_weights, weights, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)
