"""One peer of generation.py, in a process of its own: transformers' or CTranslate2's generation of a random Marian.

    generation_peer.py transformers|ctranslate2 SETTINGS

SETTINGS is a JSON object with the sizes of generation.py; with a "folder", the Marian that it holds is taken instead of
a random one. The process says on standard output, one JSON object a
line, first what it is; then, for each {"beams": K, "repeats": N} on standard input, how long one generation took and
how many tokens each target had. It ends with its standard input.
"""

import importlib.metadata
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import numpy as np
import torch
from alternation import seconds_each
from transformers import GenerationConfig, MarianConfig, MarianMTModel
from transformers.utils.logging import disable_progress_bar

END, UNKNOWN = 0, 1


def marian(sizes: Namespace) -> MarianMTModel:
    """Makes a Marian of random weights; its last token is padding and the start of every target, as usual."""
    pad = sizes.vocabulary - 1
    config = MarianConfig(
        vocab_size=sizes.vocabulary,
        d_model=sizes.width,
        encoder_layers=sizes.layers,
        decoder_layers=sizes.layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=sizes.feedforward,
        decoder_ffn_dim=sizes.feedforward,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=max(512, sizes.length + 1),
        pad_token_id=pad,
        eos_token_id=END,
        decoder_start_token_id=pad,
        forced_eos_token_id=None,
    )
    torch.manual_seed(0)
    return MarianMTModel(config).eval()


def make_sources(sizes: Namespace) -> np.ndarray:
    """Draws random sources, all of full length, the end token included."""
    sources = np.random.default_rng(0).integers(2, sizes.vocabulary - 1, (sizes.sources, sizes.length))
    sources[:, -1] = END
    return sources


def with_transformers(model: MarianMTModel, sizes: Namespace) -> Callable[[int], list[int]]:
    """Returns generation with transformers' generate(), eager, with its cache of keys and values."""
    torch.set_num_threads(os.cpu_count())
    source = torch.from_numpy(make_sources(sizes))
    attention_mask = torch.ones_like(source)

    def generate(beams: int) -> list[int]:
        config = GenerationConfig(
            num_beams=beams,
            do_sample=False,
            min_new_tokens=sizes.length,
            max_new_tokens=sizes.length,
            decoder_start_token_id=model.config.decoder_start_token_id,
            pad_token_id=model.config.pad_token_id,
            eos_token_id=END,
        )
        with torch.no_grad():
            targets = model.generate(source, attention_mask=attention_mask, generation_config=config)
        return [len(target) - 1 for target in targets]

    return generate


def with_ctranslate2(model: MarianMTModel, sizes: Namespace) -> Callable[[int], list[int]]:
    """Converts the model and returns generation with CTranslate2 in float32."""
    import ctranslate2

    names = {"</s>": END, "<unk>": UNKNOWN, **{f"w{i}": i for i in range(2, sizes.vocabulary - 1)}}
    names["<pad>"] = sizes.vocabulary - 1

    class Converter(ctranslate2.converters.TransformersConverter):
        """Takes made-up names for tokens from here instead of a tokenizer's files."""

        def load_tokenizer(self, *args, **kwargs):
            return SimpleNamespace(get_vocab=lambda: names, eos_token="</s>", unk_token="<unk>")

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/marian")
        Converter(f"{folder}/marian").convert(f"{folder}/ctranslate2")
        translator = ctranslate2.Translator(
            f"{folder}/ctranslate2",
            device="cpu",
            compute_type="float32",
            inter_threads=1,
            intra_threads=os.cpu_count(),
        )
    tokens = list(names)
    sources = [[tokens[i] for i in source] for source in make_sources(sizes)]

    def generate(beams: int) -> list[int]:
        results = translator.translate_batch(
            sources, beam_size=beams, min_decoding_length=sizes.length, max_decoding_length=sizes.length
        )
        return [len(result.hypotheses[0]) for result in results]

    return generate


ENGINES = {"transformers": with_transformers, "ctranslate2": with_ctranslate2}


def main() -> None:
    """Serves measurements until standard input ends."""
    # What the libraries print goes to standard error.
    replies, sys.stdout = sys.stdout, sys.stderr
    engine, sizes = sys.argv[1], Namespace(**json.loads(sys.argv[2]))
    disable_progress_bar()
    folder = getattr(sizes, "folder", None)
    model = marian(sizes) if folder is None else MarianMTModel.from_pretrained(folder, dtype=torch.float32).eval()
    generate = ENGINES[engine](model, sizes)
    versions = {package: importlib.metadata.version(package) for package in dict.fromkeys([engine, "torch"])}
    # The positions' table, which Marian counts among its parameters, is computed.
    parameters = model.num_parameters(only_trainable=True)
    print(json.dumps({"parameters": parameters, "versions": versions}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds, lengths = seconds_each(lambda beams=request["beams"]: generate(beams), request["repeats"])
        print(json.dumps({"seconds": seconds, "lengths": lengths}), file=replies, flush=True)


if __name__ == "__main__":
    main()
