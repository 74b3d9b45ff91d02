"""Presets: folders with recipe, vocabulary and trained weights, shipped here or made by `zoo train --out`."""

import json
from pathlib import Path
from typing import Any

from zoo.config import ConfigError, nearest

SHIPPED = Path(__file__).parent
CARD = "preset.json"


def shipped() -> dict[str, Path]:
    """Returns the shipped presets' folders by name."""
    return {card.parent.name: card.parent for card in sorted(SHIPPED.glob(f"*/{CARD}"))}


def find(name: str | Path) -> Path:
    """Finds a preset's folder.

    Args:
        name: A shipped preset's name, or a folder.

    Raises:
        FileNotFoundError: If there is neither; it names the nearest shipped one.
    """
    if str(name) in shipped():
        return shipped()[str(name)]
    if (Path(name) / CARD).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise FileNotFoundError(
            f"preset {str(name)!r}: the folder holds no {CARD}; give one that `zoo train --out` wrote"
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
