"""Several references of one example: how they are written in a file, and how they are found again."""

import json

import pytest

from zoo.data import SourceError, load, references


@pytest.fixture
def jsonl(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"jsonl:{path}"

    return write


def test_a_list_under_the_target_is_several_references(jsonl):
    rows = {"a": ["b", 3], "c": "d", "e": ["f"]}
    source = jsonl(*({"source": source, "target": target} for source, target in rows.items()))
    assert load(source) == [
        {"source": "a", "target": "b", "target2": "3"},
        {"source": "c", "target": "d"},
        {"source": "e", "target": "f"},
    ]
    assert [references(example) for example in load(source)] == [["b", "3"], ["d"], ["f"]]


def test_references_under_keys_of_their_own_are_the_same(jsonl):
    lists = jsonl({"text": "a", "summaries": ["b", "c", "d"]})
    found = load(lists, fields={"source": "text", "target": "summaries"})
    keys = jsonl({"text": "a", "summary1": "b", "summary2": "c", "summary3": "d"})
    fields = {"source": "text", "target": "summary1", "target2": "summary2", "target3": "summary3"}
    assert load(keys, fields=fields) == found == [{"source": "a", "target": "b", "target2": "c", "target3": "d"}]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"source": "a", "target": ["b", " "]}, "'\" \"' under the key 'target'; it takes a text or a list of texts"),
        (
            {"source": "a", "target": ["b", ["c"]]},
            "'[\"c\"]' under the key 'target'; it takes a text or a list of texts",
        ),
        ({"source": "a", "target": []}, "'[]' under the key 'target'; it takes a text or a list of texts"),
        ({"source": ["a"], "target": "b"}, "'[\"a\"]' under the key 'source'; it takes text"),
        ({"source": "a", "summary": "b"}, "no key 'target'; there is source, summary"),
    ],
)
def test_a_bad_list_is_named(row, problem, jsonl):
    with pytest.raises(SourceError) as raised:
        load(jsonl({"source": "a", "target": "b"}, row))
    assert str(raised.value).partition("line 2: ")[2] == problem


def test_references_are_found_up_to_the_first_that_is_missing():
    example = {"target": "a", "target2": "", "target3": "b", "target5": "c", "topic": "d"}
    assert references(example) == ["a", "b"]
    assert references(example, "topic") == ["d"]


def test_an_example_without_a_reference_is_named():
    with pytest.raises(SourceError, match=r"^the example '.*': no field 'target'; did you mean 'tarjet'\?$"):
        references({"source": "a", "tarjet": "b"})
    with pytest.raises(SourceError, match=r"nothing under 'target'$"):
        references({"source": "a", "target": " "})
