"""Presets: folders with recipe, vocabulary and trained weights, shipped here or made by `zoo train --out`."""

import json
from pathlib import Path
from typing import Any

from zoo.config import ConfigError, nearest
from zoo.presets.hub import HUB, find_hub_folder, is_hub_folder

SHIPPED = Path(__file__).parent
CARD = "preset.json"


def shipped() -> dict[str, Path]:
    """Returns the shipped presets' folders by name."""
    return {card.parent.name: card.parent for card in sorted(SHIPPED.glob(f"*/{CARD}"))}


def find(name: str | Path) -> Path:
    """Finds a preset's folder.

    Args:
        name: A shipped preset's name, a folder, or "hf://owner/name".

    Returns:
        A folder that holds a preset, or a model as the Hugging Face hub has them.

    Raises:
        FileNotFoundError: If there is none; it names the nearest shipped one, or says how a hub model is to be had.
    """
    if str(name) in shipped():
        return shipped()[str(name)]
    if str(name).startswith(HUB):
        return find_hub_folder(str(name))
    if (Path(name) / CARD).is_file() or is_hub_folder(Path(name)):
        return Path(name)
    if Path(name).is_dir():
        raise FileNotFoundError(
            f"preset {str(name)!r}: the folder holds neither {CARD} nor config.json; give one that `zoo train --out` "
            "wrote, or a model of the hub"
        )
    raise FileNotFoundError(f"no preset {str(name)!r}, and no such folder; {nearest(str(name), shipped())}")


def read_card(folder: Path) -> dict[str, Any]:
    """Reads a preset's card: its recipe, and what is known of it.

    Raises:
        ConfigError: If the file is not a preset's.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        card["recipe"]["task"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder / CARD}: it takes JSON with a recipe that names its task") from None
    return card


def stored_bytes(folder: Path) -> int:
    """Returns how large the weights of a preset are on disk."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
