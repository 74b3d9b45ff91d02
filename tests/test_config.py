"""Configurations: what goes in comes out, and what is wrong is named."""

import dataclasses
import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import Config, ConfigError, nearest


@dataclasses.dataclass(frozen=True)
class Optimizer(Config):
    rate: float = 0.5
    betas: tuple[float, float] = (0.9, 0.98)
    kind: Literal["adam", "sgd"] = "adam"


@dataclasses.dataclass(frozen=True)
class Recipe(Config):
    name: str = "plain"
    steps: int = 100
    jit: bool = True
    limit: int | None = None
    buckets: tuple[tuple[int, int], ...] = ((8, 8),)
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    optimizer: Optimizer = Optimizer()
    extra: Any = None

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ConfigError(f"steps: {self.steps}; it is at least 1")


finite = st.floats(allow_nan=False, allow_infinity=False)
recipes = st.builds(
    Recipe,
    name=st.text(),
    steps=st.integers(1),
    jit=st.booleans(),
    limit=st.none() | st.integers(),
    buckets=st.lists(st.tuples(st.integers(), st.integers()), max_size=3).map(tuple),
    fields=st.dictionaries(st.text(), st.text(), max_size=3),
    optimizer=st.builds(Optimizer, rate=finite, betas=st.tuples(finite, finite), kind=st.sampled_from(["adam", "sgd"])),
    extra=st.none() | st.integers() | st.text() | st.lists(st.booleans()),
)
examples = settings(max_examples=50, deadline=None, derandomize=True)


@examples
@given(recipes)
def test_json_gives_back_what_it_got(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_json_file_is_read(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"name": "größer", "steps": 7, "optimizer": {"betas": [0, 1]}}', encoding="utf-8")
    assert Recipe.from_json(path) == Recipe(name="größer", steps=7, optimizer=Optimizer(betas=(0.0, 1.0)))


def test_to_dict_holds_nothing_but_json():
    assert Recipe().to_dict() == {
        "name": "plain",
        "steps": 100,
        "jit": True,
        "limit": None,
        "buckets": [[8, 8]],
        "fields": {},
        "optimizer": {"rate": 0.5, "betas": [0.9, 0.98], "kind": "adam"},
        "extra": None,
    }


def test_what_is_left_out_keeps_its_default():
    assert Recipe.from_dict({}) == Recipe()
    assert Recipe.from_dict({"optimizer": {"kind": "sgd"}}).optimizer == Optimizer(kind="sgd")


def test_lists_become_tuples_and_integers_floats():
    recipe = Recipe.from_dict({"buckets": [[1, 2], [3, 4]], "optimizer": {"rate": 1}})
    assert recipe.buckets == ((1, 2), (3, 4))
    assert isinstance(recipe.optimizer.rate, float)
    assert hash(recipe.optimizer) == hash(Optimizer(rate=1.0))


def test_a_configuration_may_stand_in_for_its_dict():
    assert Recipe.from_dict({"optimizer": Optimizer(rate=2.0)}).optimizer.rate == 2


def test_a_constructor_checks_like_json():
    assert Recipe(buckets=[[1, 2]], optimizer={"rate": 1}) == Recipe(buckets=((1, 2),), optimizer=Optimizer(rate=1.0))
    with pytest.raises(ConfigError, match=r"Recipe.steps: 'many' is str; it takes int"):
        Recipe(steps="many")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().steps = 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, r"Recipe: no field 'stepz'; did you mean 'steps'\?"),
        ({"optimizer": {"rte": 1}}, r"Optimizer: no field 'rte'; did you mean 'rate'\?"),
        ({"zzz": 1}, "Recipe: no field 'zzz'; there is buckets, extra, fields, jit, limit, name, optimizer, steps"),
        ({"steps": "10"}, "Recipe.steps: '10' is str; it takes int"),
        ({"steps": 1.5}, "Recipe.steps: 1.5 is float; it takes int"),
        ({"steps": True}, "Recipe.steps: True is bool; it takes int"),
        ({"steps": None}, "Recipe.steps: None is NoneType; it takes int"),
        ({"jit": 1}, "Recipe.jit: 1 is int; it takes bool"),
        ({"name": 5}, "Recipe.name: 5 is int; it takes str"),
        ({"limit": "x"}, "Recipe.limit: 'x' is str; it takes int"),
        ({"optimizer": {"rate": True}}, "Optimizer.rate: True is bool; it takes float"),
        ({"optimizer": {"rate": "fast"}}, "Optimizer.rate: 'fast' is str; it takes float"),
        ({"optimizer": {"kind": "adm"}}, r"Optimizer.kind: 'adm'; did you mean 'adam'\?"),
        ({"optimizer": {"betas": [0.9]}}, r"Optimizer.betas: \[0.9\]; it takes a list of 2"),
        ({"optimizer": {"betas": [0.9, "x"]}}, r"Optimizer.betas\[1\]: 'x' is str; it takes float"),
        ({"optimizer": "adam"}, "Recipe.optimizer: 'adam'; it takes an object with the fields of Optimizer"),
        ({"buckets": 8}, "Recipe.buckets: 8; it takes a list"),
        ({"buckets": [[8, 8], [8]]}, r"Recipe.buckets\[1\]: \[8\]; it takes a list of 2"),
        ({"buckets": [8]}, r"Recipe.buckets\[0\]: 8; it takes a list"),
        ({"fields": ["a"]}, r"Recipe.fields: \['a'\]; it takes an object"),
        ({"fields": {"a": 1}}, "Recipe.fields.a: 1 is int; it takes str"),
        ({"steps": 0}, "steps: 0; it is at least 1"),
        ([], r"Recipe: \[\]; it takes an object"),
        (5, "Recipe: 5; it takes an object"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(values)


@pytest.mark.parametrize("text", ["{", "", "{'steps': 1}"])
def test_a_file_that_is_not_json_is_named(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.json: not JSON"):
        Recipe.from_json(path)


def test_a_file_that_holds_no_object_is_refused(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"Recipe: \[1, 2\]; it takes an object"):
        Recipe.from_json(path)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=7", Recipe(steps=7)),
        ("name=fast", Recipe(name="fast")),
        ('name="7"', Recipe(name="7")),
        ("name=7", Recipe(name="7")),
        ("name=true", Recipe(name="true")),
        ("name=a=b", Recipe(name="a=b")),
        ("name=", Recipe(name="")),
        ("jit=false", Recipe(jit=False)),
        ("limit=3", Recipe(limit=3)),
        ("limit=null", Recipe()),
        ("buckets=[[1, 2], [3, 4]]", Recipe(buckets=((1, 2), (3, 4)))),
        ('fields={"source": "en"}', Recipe(fields={"source": "en"})),
        ("optimizer.rate=1e-3", Recipe(optimizer=Optimizer(rate=0.001))),
        ("optimizer.kind=sgd", Recipe(optimizer=Optimizer(kind="sgd"))),
        ('optimizer={"rate": 2}', Recipe(optimizer=Optimizer(rate=2.0))),
        (" steps =7", Recipe(steps=7)),
    ],
)
def test_override_reaches_every_field(assignment, expected):
    assert Recipe().override([assignment]) == expected


def test_later_overrides_win_and_the_original_stays():
    recipe = Recipe(limit=9)
    changed = recipe.override(["steps=1", "optimizer.rate=3", "steps=2"])
    assert changed == Recipe(limit=9, steps=2, optimizer=Optimizer(rate=3.0))
    assert recipe == Recipe(limit=9)


@examples
@given(recipes, recipes)
def test_overriding_every_field_gives_the_other_recipe(recipe, other):
    assignments = [f"{key}={json.dumps(value)}" for key, value in other.to_dict().items()]
    assert recipe.override(assignments) == other


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps", "--set 'steps': it takes FIELD=VALUE"),
        ("stps=1", r"--set 'stps=1': no field 'stps'; did you mean 'steps'\?"),
        ("optimizer.rte=1", r"no field 'optimizer.rte'; did you mean 'rate'\?"),
        ("optimiser.rate=1", r"no field 'optimiser'; did you mean 'optimizer'\?"),
        ("steps.more=1", "no field 'steps.more'; there is none"),
        ("limit.more=1", "no field 'limit.more'; there is none"),
        ("=1", "no field ''"),
        ("steps=fast", "Recipe.steps: 'fast' is str; it takes int"),
        ("steps=0", "steps: 0; it is at least 1"),
        ("optimizer.kind=adm", r"Optimizer.kind: 'adm'; did you mean 'adam'\?"),
    ],
)
def test_a_wrong_override_is_named(assignment, message):
    with pytest.raises(ConfigError, match=message):
        Recipe().override([assignment])


def test_nearest_names_one_or_all_or_none():
    assert nearest("strat", ["start", "end"]) == "did you mean 'start'?"
    assert nearest("xyz", ["start", "end"]) == "there is end, start"
    assert nearest("xyz", []) == "there is none"
