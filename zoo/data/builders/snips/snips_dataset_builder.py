"""SNIPS as a tensorflow-datasets builder."""

from typing import ClassVar

from zoo.data.builders.labelled import SlotBuilder


class Builder(SlotBuilder):
    """Requests to a voice assistant, {"text": ..., "intent": "PlayMusic", "slots": "O O B-artist"}.

    Source: Coucke et al. 2018, Snips Voice Platform (arXiv:1805.10190); splits of Goo et al. 2018.
    """

    DESCRIPTION = """
SNIPS: requests to a voice assistant, lower-cased, one slot tag a word, in upstream's order.

Licence: the repository states none; Snips released the benchmark as CC0 1.0.
"""
    CITATION = """
@article{coucke-etal-2018-snips,
  title = {Snips Voice Platform: an embedded Spoken Language Understanding system for private-by-design voice
           interfaces},
  author = {Coucke, Alice and Saade, Alaa and Ball, Adrien and others},
  journal = {arXiv preprint arXiv:1805.10190},
  year = {2018}
}
"""
    CLASSES: ClassVar = {
        "text": None,
        "intent": (
            "AddToPlaylist",
            "BookRestaurant",
            "GetWeather",
            "PlayMusic",
            "RateBook",
            "SearchCreativeWork",
            "SearchScreeningEvent",
        ),
        "slots": None,
    }
    URLS: ClassVar = SlotBuilder.urls("snips")
