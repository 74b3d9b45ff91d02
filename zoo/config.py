"""Configurations: frozen dataclasses, JSON in, JSON out."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

# What TF_XLA_FLAGS holds where matrices are multiplied in bfloat16: see zoo/training/step_tensorflow.py.
BFLOAT16_FLAGS = "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_ops_to_cluster=FUSIBLE"


class ConfigError(ValueError):
    """Says which field is wrong, what came and what would be right."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Ends an error about an unknown name: the nearest valid one, or all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(names)}" if names else "there is none"


@dataclasses.dataclass(frozen=True)
class Config:
    """A frozen dataclass of numbers, strings, tuples and other Configs, each checked against its annotation.

    >>> from zoo.training import TrainingConfig
    >>> TrainingConfig().override(["optimizer.schedule=cosine"]).optimizer.schedule
    'cosine'
    >>> TrainingConfig().override(["optimiser.schedule=cosine"])
    Traceback (most recent call last):
    zoo.config.ConfigError: --set 'optimiser.schedule=cosine': no field 'optimiser'; did you mean 'optimizer'?
    """

    def __post_init__(self):
        for name, hint in typing.get_type_hints(type(self)).items():
            value = _parse(getattr(self, name), hint, f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the configuration from plain values; fields that are left out keep their defaults.

        Raises:
            ConfigError: For an unknown key, which names the nearest, or a value of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__}: {values!r}; it takes an object with the fields of {cls.__name__}")
        hints = typing.get_type_hints(cls)
        for key in values:
            if key not in hints:
                raise ConfigError(f"{cls.__name__}: no field {key!r}; {nearest(key, hints)}")
        return cls(**values)

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Reads the configuration from a JSON file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON: {error}") from None
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def override(self, assignments: Iterable[str]) -> Self:
        """Returns a copy with fields set from texts such as "training.steps=100"; values are JSON or bare strings.

        Raises:
            ConfigError: For a text without "=", an unknown field, or a value of the wrong type.
        """
        values = self.to_dict()
        for assignment in assignments:
            path, separator, text = assignment.partition("=")
            if not separator:
                raise ConfigError(f"--set {assignment!r}: it takes FIELD=VALUE, for example training.steps=100")
            *parents, last = path.strip().split(".")
            node = values
            for depth, parent in enumerate([*parents, last]):
                if not isinstance(node, dict) or parent not in node:
                    names = node if isinstance(node, dict) else ()
                    raise ConfigError(
                        f"--set {assignment!r}: no field {'.'.join([*parents, last][: depth + 1])!r}; "
                        f"{nearest(parent, names)}"
                    )
                if depth < len(parents):
                    node = node[parent]
            node[last] = _value(text, instead_of=node[last])
        return type(self).from_dict(values)


def _value(text: str, instead_of: Any) -> Any:
    """Reads a value that was typed: JSON, or the very text where it is none or where a text stood before."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(instead_of, str) and isinstance(value, (bool, int, float)) else value


def _parse(value: Any, hint: Any, where: str) -> Any:
    """Checks a plain value against a type annotation and turns dicts into Configs and lists into tuples."""
    if isinstance(hint, type) and issubclass(hint, Config):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {value!r}; it takes an object with the fields of {hint.__name__}")
        return hint.from_dict(value)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _parse(value, hint, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r}; {nearest(str(value), map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: {value!r}; it takes a list")
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(hints) != len(value):
            raise ConfigError(f"{where}: {value!r}; it takes a list of {len(hints)}")
        return tuple(_parse(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, hints)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {value!r}; it takes an object")
        return {key: _parse(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{where}: {value!r} is {type(value).__name__}; it takes {hint.__name__}")
