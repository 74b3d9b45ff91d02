"""What the pages say of the project is what the project says of itself."""

import importlib
import json
import re
from collections import defaultdict

import pytest
from markdown_it import MarkdownIt

import zoo
from tests.docs.test_code import PAGES, ROOT
from zoo.presets import read_card, shipped
from zoo.tasks import TASKS, task_class
from zoo.tasks.card import presets_table, readme


def test_the_table_of_presets_in_the_readme():
    assert presets_table("zoo/presets/NAME/README.md") in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", shipped())
def test_a_card_is_complete_and_its_readme_says_the_same(name):
    folder = shipped()[name]
    card = read_card(folder)
    written = ("title", "data", "licence", "limits", "biases", "command", "machine", "scoring", "headline", "splits")
    assert all(card[field] for field in (*written, "parameters", "minutes", "score", "scores"))
    assert len(card["samples"]) == 10
    assert (folder / "README.md").read_text(encoding="utf-8") == readme(folder)


def test_the_figures_in_the_tables_of_the_benchmarks():
    tables = read_tables((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"))
    figures = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    for title, rows in figures.items():
        for row, columns in rows.items():
            for column, figure in columns.items():
                cell = tables[title][row][column]
                assert float(re.match(r"[\d.,]*\d", cell)[0].replace(",", "")) == figure, (title, row, column)


def read_tables(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """Reads Markdown's tables: by the heading above and by what stands in the corner, then by row and column."""
    tables, heading, columns = defaultdict(dict), "", []
    for line in text.splitlines():
        if not line.startswith("|"):
            heading, columns = line.lstrip("# ") if line.startswith("#") else heading, []
            continue
        row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not columns:
            corner, columns = row.removesuffix(", T ="), cells
        for title in (heading, corner):
            tables[title][row] = dict(zip(columns, cells))
    return tables


@pytest.mark.parametrize("room", ["attention", "layers", "data", "training", "generation", "checkpoints"])
def test_every_public_name_is_in_the_reference(room):
    listed = " ".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md")).split()
    assert set(getattr(zoo, room).__all__) - {"masks"} <= set(listed)


# === Names in the text ===


FIELD = re.compile(r"((training|adapt|model|batching|generation|images|vision)(\.[a-z_]+)+)(=.*)?")


def named(page) -> list[str]:
    """Finds what a page's text writes as code."""
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    children = [child for token in tokens if token.type == "inline" for child in token.children]
    return [child.content for child in children if child.type == "code_inline"]


@pytest.fixture(scope="module")
def fields():
    """The fields of all tasks' recipes: "training.steps" ..."""

    def paths(values, prefix=""):
        for name, value in values.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{name}.")

    return {path for name in TASKS for path in paths(task_class(name).recipe_class().to_dict())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_the_text_exist(page, fields):
    for code in named(page):
        if found := re.match(r"zoo(\.\w+)+", code):
            name, module = found[0].split(".")[1:], zoo
            for number, part in enumerate(name, 1):
                if not hasattr(module, part):
                    importlib.import_module(".".join(["zoo", *name[:number]]))
                module = getattr(module, part)
        elif found := re.fullmatch(
            r"((training|adapt|model|batching|generation|images|vision)(\.[a-z_]+)+)(=.*)?", code
        ):
            assert found[1] in {*fields, "model.safetensors"}, code
        elif re.fullmatch(r"(zoo|docs|benchmarks|tests)/[\w/.*-]+", code):
            assert list(ROOT.glob(code.replace("NAME", "*").rstrip("/"))), code
