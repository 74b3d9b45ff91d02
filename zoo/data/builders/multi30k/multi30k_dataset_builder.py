"""Multi30k task 1 (raw text) as a tensorflow-datasets builder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from zoo.data.files import SourceError, read_lines

_URL = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"

_DESCRIPTION = """
Multi30k, task 1: descriptions of Flickr30K images in English with translations by professionals into German and
French. Raw text: untokenized and cased, one sentence a line, in upstream's order.

Licence: upstream states none. The sentences derive from Flickr30K, whose terms allow non-commercial research and
education; the images are not part of this dataset.
"""

_CITATION = """
@inproceedings{elliott-etal-2016-multi30k,
  title = {{Multi30K}: Multilingual {E}nglish-{G}erman Image Descriptions},
  author = {Elliott, Desmond and Frank, Stella and Sima'an, Khalil and Specia, Lucia},
  booktitle = {Proceedings of the 5th Workshop on Vision and Language},
  year = {2016},
  pages = {70--74},
  doi = {10.18653/v1/W16-3210}
}
"""

# Our split names are the ones that TFDS users expect; upstream calls the development set "val".
_UPSTREAM = {
    "train": "train",
    "validation": "val",
    "test_2016_flickr": "test_2016_flickr",
    "test_2017_flickr": "test_2017_flickr",
    "test_2017_mscoco": "test_2017_mscoco",
}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Pairs of sentences, {"source": ..., "target": ...}, in one of four directions.

    Source: Elliott et al. 2016, Multi30K: Multilingual English-German Image Descriptions.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit a3d2e0d26b56."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="en-de", description="English to German."),
        tfds.core.BuilderConfig(name="de-en", description="German to English."),
        tfds.core.BuilderConfig(name="en-fr", description="English to French."),
        tfds.core.BuilderConfig(name="fr-en", description="French to English."),
    ]

    def __init__(self, *, raw_dir: str | Path | None = None, **kwargs: Any):
        """Constructs the builder.

        Args:
            raw_dir: A folder with upstream's files (train.en.gz, ...) to read; None downloads them.
            **kwargs: data_dir, config and version, as every TFDS builder takes them.
        """
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict({"source": tfds.features.Text(), "target": tfds.features.Text()}),
            supervised_keys=("source", "target"),
            homepage="https://github.com/multi30k/dataset",
            citation=_CITATION,
            # Line N of a test set stays line N, so outputs can be compared with other systems' files.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        languages = self.builder_config.name.split("-")
        names = [f"{upstream}.{language}.gz" for upstream in _UPSTREAM.values() for language in languages]
        if self._raw_dir is None:
            paths = dl_manager.download({name: _URL + name for name in names})
        else:
            paths = {name: Path(self._raw_dir, name) for name in names}
            missing = [name for name in names if not paths[name].exists()]
            if missing:
                raise SourceError(f"{self._raw_dir}: no {', '.join(missing)}")
        return {
            split: self._generate_examples(*(paths[f"{upstream}.{language}.gz"] for language in languages))
            for split, upstream in _UPSTREAM.items()
        }

    def _generate_examples(self, source: Path, target: Path) -> Iterator[tuple[int, dict[str, str]]]:
        sources, targets = read_lines(source), read_lines(target)
        if len(sources) != len(targets):
            raise SourceError(f"{source} has {len(sources)} lines and {target} {len(targets)}; they go in pairs")
        for number, (source_line, target_line) in enumerate(zip(sources, targets)):
            yield number, {"source": source_line, "target": target_line}
