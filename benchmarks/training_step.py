"""Times one optimizer step of the same encoder-decoder, built from zoo's and from keras-hub's blocks, under XLA.

A step is forward, cross-entropy, backward, clipping to a global norm of 1, and AdamW, in float32, on one batch of
full rows. All sides run in this one process and take turns (see alternation.py):

    zoo                     encoder_decoder and make_train_step; dropout where zoo's recipes have it, on embeddings
                            and sublayer outputs
    zoo, attention dropout  the same with dropout on the attention weights too, which is where keras-hub has it
    keras-hub               TransformerEncoder and TransformerDecoder; compile(jit_compile=True) and train_on_batch
    torch                   nn.Transformer, eager, for reference; dropout also in the feed-forward networks

With --dropout 0 all sides do the same work, and the second one is left out.

    .venv-peers/bin/python benchmarks/training_step.py [--dropout 0] [--json FILE]
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import keras_hub
import numpy as np
import tensorflow as tf
import torch
from alternation import alternate, describe_ratio, machine, ratio, seconds_each, write_json

from zoo.models.encoder_decoder import END, START, EncoderDecoderConfig, encoder_decoder
from zoo.training import OptimizerConfig, cross_entropy, make_optimizer, make_train_step, token_mean

LEARNING_RATE, WEIGHT_DECAY, BETAS, EPSILON, CLIP_NORM = 1e-4, 0.01, (0.9, 0.98), 1e-9, 1.0

ZOO, ZOO_ATTENTION, KERAS_HUB, TORCH = "zoo", "zoo, attention dropout", "keras-hub", "torch"
PACKAGES = ("tensorflow", "keras", "keras-hub", "torch", "numpy")


class Side(NamedTuple):
    """One trainable model: its number of parameters, and a step that returns the loss."""

    parameters: int
    step: Callable[[], float]


def make_batch(sizes: argparse.Namespace) -> dict[str, np.ndarray]:
    """Draws random tokens for rows without padding: sources end with END, targets begin with START."""
    tokens = np.random.default_rng(0).integers(4, sizes.vocabulary, (2, sizes.batch, sizes.length), dtype=np.int32)
    source, labels = tokens
    source[:, -1] = labels[:, -1] = END
    target = np.roll(labels, 1, axis=1)
    target[:, 0] = START
    return {"source": source, "target": target, "labels": labels}


# === zoo ===


def zoo_side(sizes: argparse.Namespace, batch: dict[str, np.ndarray], attention_dropout: float = 0.0) -> Side:
    """Builds zoo's model and its compiled training step."""
    model = encoder_decoder(
        EncoderDecoderConfig(
            vocabulary_size=sizes.vocabulary,
            width=sizes.width,
            num_heads=sizes.heads,
            feedforward_dim=sizes.feedforward,
            num_encoder_layers=sizes.layers,
            num_decoder_layers=sizes.layers,
            max_length=max(256, sizes.length),
            dropout=sizes.dropout,
            attention_dropout=attention_dropout,
        )
    )
    optimizer = make_optimizer(
        OptimizerConfig(
            learning_rate=LEARNING_RATE,
            schedule="constant",
            warmup_steps=1,
            weight_decay=WEIGHT_DECAY,
            beta_1=BETAS[0],
            beta_2=BETAS[1],
            epsilon=EPSILON,
        ),
        steps=1000,
    )

    def loss(model, batch, training):
        logits = model({"source": batch["source"], "target": batch["target"]}, training=training)
        return token_mean(cross_entropy(logits, batch["labels"]), batch["labels"])[0], {}

    train_step = make_train_step(model, optimizer, loss, clip_norm=CLIP_NORM)
    tensors = {name: tf.constant(ids) for name, ids in batch.items()}
    return Side(model.count_params(), lambda: float(train_step(tensors)["loss"]))


# === keras-hub ===


def keras_hub_side(sizes: argparse.Namespace, batch: dict[str, np.ndarray]) -> Side:
    """Builds the model from keras-hub's blocks and compiles it the usual Keras way."""
    block = {
        "intermediate_dim": sizes.feedforward,
        "num_heads": sizes.heads,
        "dropout": sizes.dropout,
        "normalize_first": True,
    }
    embedding = keras_hub.layers.ReversibleEmbedding(sizes.vocabulary, sizes.width)

    def embed(tokens):
        x = embedding(tokens) * sizes.width**0.5
        return keras.layers.Dropout(sizes.dropout)(x + keras_hub.layers.SinePositionEncoding()(x))

    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    source_mask, target_mask = keras.ops.not_equal(source, 0), keras.ops.not_equal(target, 0)
    memory = embed(source)
    for _ in range(sizes.layers):
        memory = keras_hub.layers.TransformerEncoder(**block)(memory, padding_mask=source_mask)
    memory = keras.layers.LayerNormalization()(memory)
    x = embed(target)
    for _ in range(sizes.layers):
        decoder = keras_hub.layers.TransformerDecoder(**block)
        x = decoder(x, memory, decoder_padding_mask=target_mask, encoder_padding_mask=source_mask)
    logits = embedding(keras.layers.LayerNormalization()(x), reverse=True)

    model = keras.Model({"source": source, "target": target}, logits)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, *BETAS, epsilon=EPSILON, global_clipnorm=CLIP_NORM)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=True)
    if not model.jit_compile:
        raise RuntimeError("keras-hub: Keras fell back to a graph without XLA; the two sides would not be comparable")
    inputs, labels = {name: tf.constant(batch[name]) for name in ("source", "target")}, tf.constant(batch["labels"])
    return Side(model.count_params(), lambda: float(model.train_on_batch(inputs, labels)))


# === torch ===


class TorchTransformer(torch.nn.Module):
    """nn.Transformer between tied embeddings with sinusoidal positions."""

    def __init__(self, sizes: argparse.Namespace):
        super().__init__()
        self.width = sizes.width
        self.embedding = torch.nn.Embedding(sizes.vocabulary, sizes.width)
        torch.nn.init.normal_(self.embedding.weight, std=sizes.width**-0.5)
        self.dropout = torch.nn.Dropout(sizes.dropout)
        self.transformer = torch.nn.Transformer(
            sizes.width,
            sizes.heads,
            sizes.layers,
            sizes.layers,
            sizes.feedforward,
            sizes.dropout,
            batch_first=True,
            norm_first=True,
        )
        angles = torch.arange(sizes.length)[:, None] / 10000 ** (torch.arange(0, sizes.width, 2) / sizes.width)
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], dim=1))
        self.register_buffer("hidden", torch.ones(sizes.length, sizes.length, dtype=torch.bool).triu(1))

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x, y = (self.dropout(self.embedding(ids) * self.width**0.5 + self.positions) for ids in (source, target))
        padding = {"src_key_padding_mask": source == 0, "memory_key_padding_mask": source == 0}
        y = self.transformer(x, y, tgt_mask=self.hidden, tgt_is_causal=True, **padding)
        return torch.nn.functional.linear(y, self.embedding.weight)


def torch_side(sizes: argparse.Namespace, batch: dict[str, np.ndarray]) -> Side:
    """Builds the model from torch's own blocks, trained eagerly."""
    torch.set_num_threads(os.cpu_count())
    warnings.filterwarnings("ignore", message="enable_nested_tensor")
    model = TorchTransformer(sizes).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, BETAS, EPSILON, weight_decay=WEIGHT_DECAY, fused=True
    )
    source, target, labels = (torch.from_numpy(batch[name]).long() for name in ("source", "target", "labels"))

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(source, target).flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    return Side(sum(parameter.numel() for parameter in model.parameters()), step)


# === The measurement ===


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Time one training step of zoo and of its peers.")
    sizes = {"width": 256, "feedforward": 1024, "heads": 8, "layers": 4, "vocabulary": 8000, "batch": 64, "length": 32}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--dropout", type=float, default=0.1, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side; default: %(default)s")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a turn; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args(arguments)


def main() -> None:
    """Builds, warms up, measures and reports."""
    options = parse()
    figures = {"benchmark": "training_step", "settings": vars(options), "machine": machine(PACKAGES)}
    print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    batch = make_batch(options)
    sides = {ZOO: zoo_side(options, batch), KERAS_HUB: keras_hub_side(options, batch)}
    if options.dropout:
        sides[ZOO_ATTENTION] = zoo_side(options, batch, attention_dropout=options.dropout)
    sides[TORCH] = torch_side(options, batch)
    if len({side.parameters for side in sides.values()}) > 1:
        counts = ", ".join(f"{name} {side.parameters:,}" for name, side in sides.items())
        raise RuntimeError(f"the models differ in their parameters: {counts}")

    first = {}
    for name, side in sides.items():
        began = time.perf_counter()
        loss = side.step()
        first[name] = time.perf_counter() - began
        print(f"{name:<24} {side.parameters:,} parameters, first step {first[name]:.1f} s, loss {loss:.2f}", flush=True)

    def seconds_a_step(side: Side) -> float:
        return seconds_each(side.step, options.steps)[0]

    seconds = alternate({name: partial(seconds_a_step, side) for name, side in sides.items()}, options.rounds)

    print(f"\n{'':<24} {'s/step median':>14} {'min':>8} {'target tokens/s':>16}")
    figures["sides"] = {}
    for name, turn in seconds.items():
        median = statistics.median(turn)
        tokens_per_second = options.batch * options.length / median
        figures["sides"][name] = {
            "parameters": sides[name].parameters,
            "first_step_seconds": first[name],
            "seconds": turn,
            "median": median,
            "min": min(turn),
            "tokens_per_second": tokens_per_second,
        }
        print(f"{name:<24} {median:>14.4f} {min(turn):>8.4f} {tokens_per_second:>16,.0f}")
    print()
    figures["ratios"] = {}
    for ours in (name for name in (ZOO, ZOO_ATTENTION) if name in sides):
        for theirs in (KERAS_HUB, TORCH):
            name = f"{ours} / {theirs}"
            figures["ratios"][name] = ratio(seconds[ours], seconds[theirs])
            print(describe_ratio(name, figures["ratios"][name], "s/step: below 1, zoo is faster"))
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
