"""vision_encoder: from images to a grid of features, the memory of whoever wants to say something about them."""

import dataclasses
import inspect
import re
from typing import Any, Literal

import keras
from keras import KerasTensor

from zoo.attention import Dropout
from zoo.config import Config, ConfigError, nearest
from zoo.layers import Encoder
from zoo.layers.vision import ClassToken, DepthwiseConvolution, Grid, GridPositions, PatchEmbedding, StoredNormalization
from zoo.models.efficientnet import efficientnet_lite0
from zoo.models.functional import Functional

APPLICATIONS = tuple(sorted(name for name, found in vars(keras.applications).items() if inspect.isfunction(found)))
KINDS = ("vit", "efficientnet_lite0", *APPLICATIONS)
_REPLACED = {
    keras.layers.BatchNormalization: StoredNormalization,
    keras.layers.DepthwiseConv2D: DepthwiseConvolution,
}


@dataclasses.dataclass(frozen=True)
class ViTConfig(Config):
    """Sizes of a vision transformer.

    Args:
        patch_size: Side of a patch in pixels.
        width: D, which is E.
        num_heads: N; D / N is the head width.
        feedforward_dim: Width of the feed-forward networks' hidden layer.
        num_layers: Blocks.
        activation: The feed-forward networks' activation.
        epsilon: Added to the variance in each normalization.
        class_token: Whether a learned vector stands before the patches.
        learned_size: Height and width of the images that positions were learned for, where other images are seen;
            positions are interpolated then.
        dropout: Of embeddings and sublayer outputs.
        attention_dropout: Of attention weights.
    """

    patch_size: int = 16
    width: int = 768
    num_heads: int = 12
    feedforward_dim: int = 3072
    num_layers: int = 12
    activation: str = "gelu"
    epsilon: float = 1e-12
    class_token: bool = True
    learned_size: tuple[int, int] | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide width {self.width}")

    @property
    def block(self) -> dict:
        """The arguments of each block."""
        names = ("num_heads", "feedforward_dim", "activation", "dropout", "attention_dropout", "epsilon")
        return {**{name: getattr(self, name) for name in names}, "norm_first": True}


@dataclasses.dataclass(frozen=True)
class VisionEncoderConfig(Config):
    """What sees the images.

    Args:
        kind: "vit", "efficientnet_lite0", or a network of keras.applications, such as "MobileNetV2".
        image_size: Height and width in pixels.
        stages: Which features of a convolutional network, from fine to coarse: of EfficientNet-Lite0 "stride4",
            "stride8", "stride16", "stride32" and "last"; of others names of layers and "last". Several are
            concatenated on the finest grid.
        pooling: "none" gives the grid; "first" the class token's features and "mean" those of all places but the class
            token's, averaged.
        classes: Names of the classes that a last layer over pooled features tells apart; none for the features.
        vit: Sizes, for kind "vit".
    """

    kind: str = "efficientnet_lite0"
    image_size: tuple[int, int] = (224, 224)
    stages: tuple[str, ...] = ("last",)
    pooling: Literal["none", "first", "mean"] = "none"
    classes: tuple[str, ...] = ()
    vit: ViTConfig = ViTConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in KINDS:
            raise ConfigError(f"kind: {self.kind!r}; {nearest(self.kind, KINDS)}")
        least = self.vit.patch_size if self.kind == "vit" else 32
        if min(self.image_size) < least:
            raise ConfigError(f"image_size: {list(self.image_size)}; height and width are at least {least}")
        if not self.stages or (self.kind == "vit" and self.stages != ("last",)):
            raise ConfigError(f"stages: {list(self.stages)}; it takes {'[last]' if self.kind == 'vit' else 'some'}")
        if self.pooling == "first" and not (self.kind == "vit" and self.vit.class_token):
            raise ConfigError("pooling: 'first'; it takes a class token, which only kind 'vit' may have")
        if self.classes and self.pooling == "none":
            raise ConfigError(f"classes: {len(self.classes)} of them with pooling 'none'; it takes 'first' or 'mean'")


@keras.saving.register_keras_serializable("zoo")
class VisionEncoder(Functional):
    """A functional model from images (B, height, width, 3) to features (B, S, E), pooled (B, E), or to logits.

    Attributes:
        grid: Height and width of the grid that S goes through row by row.
        extra: How many vectors, such as a class token, stand before the grid.
        backbone: The whole network of keras.applications that the features come from; None for other kinds.
    """

    config_class = VisionEncoderConfig
    config: VisionEncoderConfig

    def __init__(self, *args: Any, grid: Grid, extra: int = 0, backbone: keras.Model | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.grid = grid
        self.extra = extra
        self.backbone = backbone

    @classmethod
    def build_from(cls, config: VisionEncoderConfig, name: str) -> "VisionEncoder":
        return vision_encoder(config, name)


def vision_encoder(config: VisionEncoderConfig, name: str = "vision_encoder") -> VisionEncoder:
    """Builds a vision encoder with random weights; zoo/checkpoints/backbones.py has pretrained ones.

    Args:
        config: The kind and its sizes.
        name: The Keras model's name.

    Returns:
        A model from float images (B, height, width, 3), prepared as the kind's weights expect them, to (B, S, E); with
        pooling to (B, E), and with classes to logits (B, classes).

    Raises:
        ConfigError: If a stage is not known, or stages do not fit on one grid.

    Source: ViT: Dosovitskiy et al. 2021, section 3.1.
    """
    images = keras.Input((*config.image_size, 3), name="images")
    if config.kind == "vit":
        return _vit(config, images, name)
    backbone = None
    if config.kind == "efficientnet_lite0":
        features = _joined(config, efficientnet_lite0(images))
    else:
        backbone = _application(config)
        layers = {layer.name: layer.output for layer in backbone.layers} | {"last": backbone.output}
        chosen = keras.Model(backbone.input, _joined(config, layers), name="backbone")
        features = chosen(images)
    grid = features.shape[1:3]
    if config.pooling == "mean":
        outputs = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="pooling")(features)
    else:
        outputs = keras.layers.Reshape((grid[0] * grid[1], features.shape[-1]), name="features")(features)
    outputs = _classified(config, outputs)
    return VisionEncoder(inputs=images, outputs=outputs, name=name, config=config, grid=grid, backbone=backbone)


def _vit(config: VisionEncoderConfig, images: KerasTensor, name: str) -> VisionEncoder:
    # === Layers ===
    sizes = config.vit
    grid, learned = (
        (size[0] // sizes.patch_size, size[1] // sizes.patch_size)
        for size in (config.image_size, sizes.learned_size or config.image_size)
    )
    extra = int(sizes.class_token)
    patches = PatchEmbedding(sizes.patch_size, sizes.width, name="patches")
    class_token = ClassToken(name="class_token")
    positions = GridPositions(learned, grid, extra, name="patch_positions")
    dropout = Dropout(sizes.dropout, name="patch_dropout")
    stack = Encoder(sizes.num_layers, sizes.block, name="encoder")

    # === Functional model ===
    x = patches(images)
    if sizes.class_token:
        x = class_token(x)
    features = stack(dropout(positions(x)))
    if config.pooling == "first":
        features = features[:, 0]
    elif config.pooling == "mean":
        features = keras.layers.GlobalAveragePooling1D(data_format="channels_last", name="pooling")(features[:, extra:])
    outputs = _classified(config, features)
    return VisionEncoder(inputs=images, outputs=outputs, name=name, config=config, grid=grid, extra=extra)


def _classified(config: VisionEncoderConfig, features: KerasTensor) -> KerasTensor:
    return keras.layers.Dense(len(config.classes), name="logits")(features) if config.classes else features


def _joined(config: VisionEncoderConfig, found: dict[str, KerasTensor]) -> KerasTensor:
    """Concatenates the chosen stages on the finest of their grids."""
    for stage in config.stages:
        if stage not in found:
            raise ConfigError(f"stages: {stage!r}; {nearest(stage, found)}")
        if len(found[stage].shape) != 4:
            raise ConfigError(f"stages: {stage!r} is no grid of features but {found[stage].shape}")
    chosen = [found[stage] for stage in config.stages]
    height, width = max(x.shape[1:3] for x in chosen)
    fitting = []
    for stage, x in zip(config.stages, chosen):
        if height % x.shape[1] or width % x.shape[2]:
            raise ConfigError(
                f"stages: {stage!r} has a grid of {x.shape[1]} x {x.shape[2]}, which does not divide the finest, "
                f"{height} x {width}; an image_size of multiples of 32 fits"
            )
        times = (height // x.shape[1], width // x.shape[2])
        layer = keras.layers.UpSampling2D(times, "channels_last", "nearest", name=f"{stage}_upsampling")
        fitting.append(x if times == (1, 1) else layer(x))
    return fitting[0] if len(fitting) == 1 else keras.layers.Concatenate(name="stages")(fitting)


def _application(config: VisionEncoderConfig) -> keras.Model:
    network = getattr(keras.applications, config.kind)
    built = network(include_top=False, weights=None, input_shape=(*config.image_size, 3))

    # Some networks leave naming to Keras, which counts on through a whole program; weights are saved by name.
    counts: dict[str, int] = {}

    def ours(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        kind = re.sub(r"_\d+$", "", layer.name)
        if kind.replace("_", "") == type(layer).__name__.lower():
            counts[kind] = counts.get(kind, -1) + 1
            settings["name"] = f"{kind}_{counts[kind]}"
        replacement: Any = _REPLACED.get(type(layer), type(layer))
        return replacement.from_config(settings)

    return keras.models.clone_model(built, clone_function=ours)
