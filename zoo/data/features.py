"""Features of images, computed once and kept on disk."""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from zoo.config import ConfigError
from zoo.data.image_stream import Damaged, image_batches
from zoo.data.images import Encoded, ImageConfig, ImageError
from zoo.files import replacing
from zoo.models.vision_encoder import VisionEncoder, VisionEncoderConfig

_TYPE = np.dtype("<f2")
# Batches between two notes on how far the work is: what a killed run loses.
_NOTE_EVERY = 16

# What a kind's pretrained weights were trained with.
_PIXELS = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_FROM_MINUS_1_TO_1 = {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0), "std": (1.0, 1.0, 1.0)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CAFFE = {"scale": 1.0, "mean": (123.68, 116.779, 103.939), "std": (1.0, 1.0, 1.0), "channels": "bgr"}
# The first that a kind's name begins with.
_EXPECTED: dict[str, dict] = {
    "vit": {},
    "efficientnet_lite0": {"scale": 1.0, "mean": (127.0,) * 3, "std": (128.0,) * 3, "resample": "bicubic"},
    "DenseNet": _IMAGENET,
    "VGG": _CAFFE,
    **{f"ResNet{layers}V2": _FROM_MINUS_1_TO_1 for layers in (50, 101, 152)},
    "ResNet": _CAFFE,
    # These normalize themselves.
    **dict.fromkeys(("EfficientNet", "ConvNeXt", "MobileNetV3"), _PIXELS),
    **dict.fromkeys(("MobileNet", "Inception", "NASNet", "Xception"), _FROM_MINUS_1_TO_1),
}


def expected_images(encoder: VisionEncoderConfig) -> ImageConfig:
    """Returns how images are prepared for the pretrained weights of an encoder's kind; squashed to its size.

    Args:
        encoder: The encoder. A ViT's own weights may come with something else.

    Raises:
        ConfigError: If nothing is known of the kind.

    Source: keras.applications' preprocess_input; EfficientNet-Lite0: MEAN_RGB and STDDEV_RGB of its training program.
    """
    for name, fields in _EXPECTED.items():
        if encoder.kind.startswith(name):
            return ImageConfig(size=encoder.image_size, **fields)
    raise ConfigError(f"kind: how images are prepared for {encoder.kind!r} is not known; give an ImageConfig")


class Features(NamedTuple):
    """Features of a list of images.

    Attributes:
        array: float16 (images, S, E), or (images, E) where the encoder pools; on disk, read when it is looked at.
        damaged: The images that could not be read, whose rows are zero.
    """

    array: np.ndarray
    damaged: Damaged


def image_features(
    encoder: VisionEncoder,
    images: Sequence[Encoded],
    config: ImageConfig,
    folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    mirrored: bool = False,
    skip_damaged: bool = False,
    batch_size: int = 32,
    progress: bool = True,
) -> Features:
    """Computes an encoder's features of images, or finds them on disk where they were computed before.

    A run that was stopped goes on where it was, and a second one waits for the first. The file's name is a digest of
    the encoder's configuration and weights, of how images are prepared, and of the images; it appears when it is whole.

    Args:
        encoder: The encoder.
        images: Encoded images, or their paths.
        config: How they are prepared; its size is the encoder's.
        folder: Where features are kept.
        names: What errors call the images.
        mirrored: Whether left and right are exchanged.
        skip_damaged: Whether damaged images are noted instead of being errors.
        batch_size: Images at a time.
        progress: Whether a bar shows it, where there is a terminal.

    Returns:
        The features, in the images' order.

    Raises:
        ImageError: For a damaged image, where they are not skipped.
        ValueError: If there is no image, or the encoder expects another size.
    """
    if not images:
        raise ValueError("images: there is none")
    if config.size != encoder.config.image_size:
        raise ValueError(f"config: size {list(config.size)}; the encoder takes {list(encoder.config.image_size)}")
    key = _digest(encoder, images, config, mirrored)
    path, note = Path(folder, f"{key}.npy"), Path(folder, f"{key}.json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _compute(encoder, images, config, path, note, names, mirrored, skip_damaged, batch_size, progress)
    _, damaged = _read(note)
    if damaged and not skip_damaged:
        raise ImageError(damaged[min(damaged)])
    return Features(np.load(path, mmap_mode="r"), damaged)


def _compute(
    encoder: VisionEncoder,
    images: Sequence[Encoded],
    config: ImageConfig,
    path: Path,
    note: Path,
    names: Sequence[str] | None,
    mirrored: bool,
    skip_damaged: bool,
    batch_size: int,
    progress: bool,
) -> None:
    """Writes the features under a temporary name, goes on behind what is there, and renames the file."""
    temporary = path.with_name(f".{path.name}.part")
    shape = encoder.output_shape[1:]
    header = _header((len(images), *shape))
    size = math.prod(shape) * _TYPE.itemsize
    # Opened without being emptied: another process may be writing it.
    with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        _wait_for_lock(file)
        if path.exists():  # by now
            return
        done, damaged = _read(note)
        if file.seek(0, os.SEEK_END) < len(header) + done * size:
            done, damaged = 0, Damaged()
        file.seek(0)
        file.write(header)
        file.seek(len(header) + done * size)
        file.truncate()
        batches = image_batches(
            images,
            config,
            batch_size,
            names=names,
            start=done,
            mirrored=mirrored,
            damaged=damaged if skip_damaged else None,
        )
        bar = tqdm(total=len(images), initial=done, desc="features", unit="image", disable=None if progress else True)
        for number, batch in enumerate(batches, 1):
            found = np.array(encoder.predict_on_batch(batch))[: len(images) - done]
            # A copy: images are decoded ahead, and the dictionary grows meanwhile.
            found[[i - done for i in list(damaged) if done <= i < done + len(found)]] = 0
            file.write(found.astype(_TYPE).tobytes())
            done += len(found)
            bar.update(len(found))
            if number % _NOTE_EVERY == 0 or done == len(images):
                file.flush()
                os.fsync(file.fileno())
                _write(note, done, {i: problem for i, problem in damaged.copy().items() if i < done})
        bar.close()
        temporary.replace(path)


def _wait_for_lock(file: BinaryIO) -> None:
    """Waits until no other process writes the file; the lock goes away with the file's closing."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _read(note: Path) -> tuple[int, Damaged]:
    """Reads how many images are done, and which of them are damaged."""
    if not note.exists():
        return 0, Damaged()
    found = json.loads(note.read_text(encoding="utf-8"))
    return found["done"], Damaged({int(number): problem for number, problem in found["damaged"].items()})


def _write(note: Path, done: int, damaged: Mapping[int, str]) -> None:
    with replacing(note) as temporary:
        temporary.write_text(json.dumps({"done": done, "damaged": damaged}), encoding="utf-8")


def _header(shape: tuple[int, ...]) -> bytes:
    """Returns what a .npy file with so many numbers begins with."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(_TYPE), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _digest(encoder: VisionEncoder, images: Sequence[Encoded], config: ImageConfig, mirrored: bool) -> str:
    """Names everything that the features depend on; files are told apart by path, size and time of change."""
    digest = hashlib.sha256(json.dumps([encoder.config.to_dict(), config.to_dict(), mirrored]).encode())
    for variable in encoder.variables:
        digest.update(variable.path.encode() + np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    for image in images:
        if not isinstance(image, (str, Path)):
            digest.update(hashlib.sha256(image).digest())
        else:
            path = Path(image).expanduser().absolute()
            found = path.stat() if path.exists() else None
            digest.update(repr((str(path), found and (found.st_size, found.st_mtime_ns))).encode())
    return digest.hexdigest()[:32]
