"""Writes the folder that hub_seq2seq.py measures: a random Marian as the hub has them.

    hub_seq2seq_peer.py FOLDER SIZES

SIZES is a JSON object with the sizes of hub_seq2seq.py. Each language has a SentencePiece model, and together they
have one vocabulary; the pieces are made up, the characters are normalized as usual.
"""

import io
import json
import sys
from argparse import Namespace
from pathlib import Path

import sentencepiece
from generation_peer import marian
from sentencepiece import sentencepiece_model_pb2


def sentence_pieces(words: list[str]) -> bytes:
    """Makes a SentencePiece model of some pieces."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small text to learn from"]),
        model_writer=trained,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(trained.getvalue())
    for number, word in enumerate(words):
        model.pieces.add(piece=word, score=-8.0 - number / 1000)
    return model.SerializeToString()


def main() -> None:
    """Writes the folder."""
    folder, sizes = Path(sys.argv[1]), Namespace(**json.loads(sys.argv[2]))
    words = [f"▁w{number}" for number in range(sizes.vocabulary - 3)]
    names = ["</s>", "<unk>", *words, "<pad>"]
    for file, half in (("source.spm", words[::2]), ("target.spm", words[1::2])):
        (folder / file).write_bytes(sentence_pieces(half))
    vocabulary = {name: number for number, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    marian(sizes).save_pretrained(folder)


if __name__ == "__main__":
    main()
