"""ATIS as a tensorflow-datasets builder."""

from typing import ClassVar

from zoo.data.builders.labelled import SlotBuilder

_INTENTS = """
abbreviation aircraft aircraft#atis_flight#atis_flight_no airfare airfare#atis_flight airfare#atis_flight_time airline
airline#atis_flight_no airport capacity cheapest city day_name distance flight flight#atis_airfare flight#atis_airline
flight_no flight_no#atis_airline flight_time ground_fare ground_service ground_service#atis_ground_fare meal quantity
restriction
"""


class Builder(SlotBuilder):
    """Questions about flights, {"text": ..., "intent": "atis_flight", "slots": "O O B-toloc.city_name"}.

    Source: Hemphill et al. 1990, The ATIS Spoken Language Systems Pilot Corpus; splits of Goo et al. 2018.
    """

    DESCRIPTION = """
ATIS: questions to an airline's information system, lower-cased, one slot tag a word, in upstream's order. Some intents
and tags of the test split never occur in the training split; several intents at once are joined by "#".

Licence: the repository states none; the corpus is distributed by the Linguistic Data Consortium.
"""
    CITATION = """
@inproceedings{hemphill-etal-1990-atis,
  title = {The {ATIS} Spoken Language Systems Pilot Corpus},
  author = {Hemphill, Charles T. and Godfrey, John J. and Doddington, George R.},
  booktitle = {Speech and Natural Language: Proceedings of a Workshop Held at Hidden Valley, Pennsylvania},
  year = {1990}
}
"""
    CLASSES: ClassVar = {"text": None, "intent": tuple(f"atis_{name}" for name in _INTENTS.split()), "slots": None}
    URLS: ClassVar = SlotBuilder.urls("atis")
