"""What functional models of the zoo share: they are saved as the configuration that they were built from."""

from typing import Any, ClassVar

import keras

from zoo.config import Config


class Functional(keras.Model):
    """A functional model that is rebuilt by its builder, in the precision that it had.

    Args:
        config: What the builder was given.
        **kwargs: inputs, outputs and name.
    """

    config_class: ClassVar[type[Config]]

    def __init__(self, *args: Any, config: Config, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.config = config

    @classmethod
    def build_from(cls, config: Any, name: str) -> "Functional":
        """Calls the builder."""
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"config": self.config.to_dict(), "name": self.name, "dtype": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "Functional":
        current = keras.config.dtype_policy()
        keras.config.set_dtype_policy(config["dtype"])
        try:
            return cls.build_from(cls.config_class.from_dict(config["config"]), config["name"])
        finally:
            keras.config.set_dtype_policy(current)
