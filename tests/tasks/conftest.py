"""One small translator that knows 32 pairs by heart."""

import pytest

from zoo.data import toy


@pytest.fixture(scope="session")
def pairs():
    return toy.numbers("en-de", 32)


@pytest.fixture(scope="session")
def recipe():
    """Makes a recipe of the smallest sizes; keywords change the model's."""
    from zoo.data.pipeline import BatchingConfig
    from zoo.generation import GenerationConfig
    from zoo.models.encoder_decoder import EncoderDecoderConfig
    from zoo.tasks.translation import TranslationRecipe
    from zoo.training import OptimizerConfig, TrainingConfig

    def make(**sizes):
        defaults = {
            "vocabulary_size": 0,
            "width": 32,
            "num_heads": 4,
            "feedforward_dim": 64,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "max_length": 32,
            "dropout": 0.0,
        }
        return TranslationRecipe(
            model=EncoderDecoderConfig(**{**defaults, **sizes}),
            batching=BatchingConfig(buckets=((32, 32),), batch_tokens=288),
            training=TrainingConfig(
                steps=150,
                evaluate_every=150,
                save_every=1000,
                average_decay=0.9,
                label_smoothing=0.0,
                optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=50, schedule="cosine"),
            ),
            generation=GenerationConfig(beams=1),
        )

    return make


@pytest.fixture(scope="session")
def trained(recipe, pairs, tmp_path_factory):
    """The translator, the folder of its run, and where the run ended."""
    from zoo.tasks.translation import Translation

    folder = tmp_path_factory.mktemp("trained")
    translator = Translation.from_examples(recipe(), pairs)
    position = translator.fit(pairs, pairs, out=folder, logdir=folder / "logs")
    translator.generator.jit = False  # what is compiled from here on, is compiled faster
    return translator, folder, position


@pytest.fixture(scope="session")
def translator(trained):
    return trained[0]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """Keeps evaluations of captions from starting Java, which takes longer than all else they do."""
    monkeypatch.setattr("zoo.metrics.captioning.shutil.which", lambda name: None)
