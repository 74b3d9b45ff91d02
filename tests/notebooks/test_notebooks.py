"""Notebooks run from top to bottom, and what is stored in them comes from such a run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BADGE = re.compile(
    r"\[!\[Open in Colab\]\(https://colab\.research\.google\.com/assets/colab-badge\.svg\)\]"
    r"\(https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/notebooks/([\w.]+)\)"
)
# The folders that a machine's own files lie in.
OWN_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|work|mnt|opt|Users|content)/[\w.]")
# Lines that C++ logs: level, day and time.
LOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d|WARNING: ")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def shown(output):
    """Gives all text of an output, whichever forms it has."""
    data = output.get("data", {})
    parts = [output.get("text", ""), *(value for form, value in data.items() if form.startswith("text/"))]
    return "".join("".join(part) for part in parts)


# === What is in the files ===


@every_notebook
def test_the_first_cell_opens_this_notebook_in_colab(path):
    found = BADGE.search("".join(cells(path, "markdown")[0]["source"]))
    assert found is not None
    assert found.group(2) == path.name


def test_all_notebooks_are_of_one_repository():
    text = [path.read_text(encoding="utf-8") for path in NOTEBOOKS]
    repositories = {name for one in text for name in re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+)", one)}
    assert len({name.removesuffix(".git") for name in repositories}) == 1


@every_notebook
def test_outputs_are_those_of_one_run_from_top_to_bottom(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert any(cell["outputs"] for cell in code)
    assert [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"] == []


@every_notebook
def test_outputs_hold_no_logs(path):
    text = [shown(output) for cell in cells(path, "code") for output in cell["outputs"]]
    assert [line for one in text for line in one.splitlines() if LOG.match(line)] == []


@every_notebook
def test_outputs_name_no_folder_of_the_machine(path):
    text = [shown(output) for cell in cells(path, "code") for output in cell["outputs"]]
    assert [found.group() for one in text for found in OWN_PATH.finditer(one)] == []


# === Runs ===


def execute(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "notebooks" / "execute.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of one code cell."""

    def write(source):
        import nbformat

        path = tmp_path / "one.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
        return path

    return write


@pytest.mark.notebook
def test_a_run_stores_what_was_shown(notebook):
    path = notebook("import os\nprint(os.environ['ZOO_NOTEBOOK_SMALL'], os.listdir())")
    ran = execute(path)
    assert ran.returncode == 0, ran.stderr
    (cell,) = cells(path, "code")
    assert "".join(cell["outputs"][0]["text"]) == "0 []\n"


@pytest.mark.notebook
def test_a_run_stores_no_logs_of_tensorflow(notebook):
    log = "I0000 00:00:1795869613.4 21427 port.cc:153] oneDNN custom operations are on."
    path = notebook(
        f"import sys\nfor line in ({log!r}, 'an own line'):\n    print(line, file=sys.stderr)\nprint('shown')"
    )
    ran = execute(path)
    assert ran.returncode == 0, ran.stderr
    (cell,) = cells(path, "code")
    assert sorted("".join(output["text"]) for output in cell["outputs"]) == ["an own line\n", "shown\n"]


@pytest.mark.notebook
def test_a_small_run_stores_nothing(notebook):
    path = notebook("import os\nassert os.environ['ZOO_NOTEBOOK_SMALL'] == '1'")
    before = path.read_bytes()
    ran = execute("--small", path)
    assert ran.returncode == 0, ran.stderr
    assert path.read_bytes() == before


@pytest.mark.notebook
def test_a_cell_that_fails_fails_the_run_and_stores_nothing(notebook):
    path = notebook("print('begun')\n1 / 0")
    before = path.read_bytes()
    ran = execute(path)
    assert ran.returncode == 1
    assert "ZeroDivisionError" in ran.stderr
    assert path.read_bytes() == before


@pytest.mark.notebook
@every_notebook
def test_a_notebook_runs(path):
    ran = execute("--small", path)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.notebook
def test_fine_tuning_runs_on_the_backend_of_tpus():
    ran = execute("--small", ROOT / "notebooks" / "finetune_on_tpu.ipynb", KERAS_BACKEND="jax")
    assert ran.returncode == 0, ran.stderr
