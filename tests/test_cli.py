"""The command line as a user meets it: a process of its own, its exit status, and what it says where."""

import json
import os
import signal
import subprocess
import sys

import pytest
import safetensors.numpy

from zoo.data import toy

TINY = [
    "model.width=16",
    "model.num_heads=2",
    "model.feedforward_dim=16",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=1",
    "model.max_length=64",
    "model.vocabulary_size=200",
    "batching.buckets=[[40,40]]",
    "batching.batch_tokens=200",
    "training.steps=24",
    "training.save_every=8",
    "training.log_every=4",
    "training.evaluate_every=24",
    "training.optimizer.learning_rate=0.02",
    "training.optimizer.warmup_steps=4",
    "generation.beams=1",
]
TRAIN = ["train", "translation", "--data", "toy:numbers/en-de", "--set", *TINY]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("ZOO_DATA", "KERAS_BACKEND")}


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """Runs `python -m zoo` with the given arguments, in a folder of its own."""
    folder = tmp_path_factory.mktemp("somewhere")

    def run(*arguments, stdin="", options=()):
        return subprocess.run(
            [sys.executable, *options, "-m", "zoo", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            cwd=folder,
            env=ENVIRONMENT,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def answers(command):
    """Runs a command that must succeed; returns its standard output."""

    def run(*arguments, **options):
        found = command(*arguments, **options)
        assert found.returncode == 0, found.stderr
        return found.stdout

    return run


@pytest.fixture(scope="session")
def complaint(command):
    """Runs a command that must fail; returns the one line that it says on standard error."""

    def run(*arguments, **options):
        found = command(*arguments, **options)
        assert found.returncode == 2, found.stderr
        assert found.stdout.strip() == ""
        (line,) = found.stderr.splitlines()
        assert line.startswith("zoo")
        return line

    return run


@pytest.fixture(scope="session")
def preset(command, tmp_path_factory):
    """The folder of a trained preset."""
    out = tmp_path_factory.mktemp("presets") / "tiny"
    found = command(*TRAIN, "--out", out)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0].startswith("best dev bleu ")
    assert found.stdout.splitlines()[1] == f"saved: {out}    use it: zoo predict {out} ..."
    return out


# === Without a model ===


def test_importing_the_package_does_no_work():
    code = (
        "import sys, zoo; zoo.list_models(); "
        "sys.exit(str({'tensorflow', 'keras', 'tensorflow_datasets', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == "set()"


def test_list_names_presets_tasks_and_models_without_tensorflow(command, answers):
    lines = answers("list").splitlines()
    assert lines[-2].startswith("tasks: ")
    assert "translation" in lines[-2]
    assert lines[-1].startswith("models: ")
    assert "encoder_decoder" in lines[-1]
    found = command("list", "--json", options=["-X", "importtime"])
    listed = json.loads(found.stdout)
    assert listed.keys() == {"presets", "tasks", "models"}
    assert len(listed["presets"]) == len(lines) - 2
    for one in listed["presets"]:
        assert one.keys() == {"name", "task", "parameters", "bytes", "score"}
        assert one["bytes"] > 0
    modules = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "zoo.cli" in modules
    assert not modules & {"tensorflow", "keras", "tensorflow_datasets", "matplotlib"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--task", "translatoin"], "did you mean 'translation'?"),
        (["predict", "no-such-preset", "text"], "no preset 'no-such-preset'"),
        (["predict", ".", "text"], "the folder holds neither preset.json nor config.json"),
        (["evaluate", "no-such-preset", "--data", "toy:numbers/en-de"], "no preset 'no-such-preset'"),
        (["attention", "no-such-preset", "text", "--out", "a.png"], "no preset 'no-such-preset'"),
        (["attention", "no-such-preset", "text", "--out", "a.pdf"], "--out a.pdf: it takes a name that ends with"),
        (["attention", "no-such-preset", "text", "--out", "a.png", "--head", "x"], "--head: 'x'; it takes a number"),
        (["train", "translatoin", "--data", "toy:numbers/en-de"], "did you mean 'translation'?"),
        (["predict", "no-such-preset", "--file", "no-such-file"], "no-such-file: No such file or directory"),
        (["predict", "no-such-preset"], "predict: no input"),
        (["predict", "no-such-preset", "text", "--file", "no-such-file"], "give texts or --file, not both"),
        (["predcit", "no-such-preset", "text"], "invalid choice: 'predcit'"),
        (["evaluate", "no-such-preset"], "required: --data"),
        (["train", "translation", "--stes", "5"], "unrecognized arguments: --stes"),
    ],
)
def test_a_bad_argument_is_said_in_one_line(complaint, arguments, says):
    assert says in complaint(*arguments)


@pytest.mark.slow
def test_doctor_says_what_is_active(answers):
    found = dict(line.split(maxsplit=1) for line in answers("doctor").splitlines())
    assert found["keras"].endswith("backend tensorflow")
    assert found["xla"] == "active"
    assert "CPU" in found["devices"]
    assert "float32" in found["precision"]
    assert "TF_CONFIG names no workers" in found["strategies"]
    assert "does NOT compile the sum" in found["strategies"]
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


# === Predictions ===


@pytest.mark.slow
def test_predict_texts(answers, preset):
    lines = [json.loads(line) for line in answers("predict", preset, "three 😀", "forty-two", "--json").splitlines()]
    assert [line["input"] for line in lines] == ["three 😀", "forty-two"]
    assert all(line.keys() == {"input", "output"} and isinstance(line["output"], str) for line in lines)


@pytest.mark.slow
def test_predict_standard_input_with_other_settings(answers, preset):
    lines = answers("predict", preset, "--set", "beams=3", "n_best=2", stdin="three\nforty-two\n").splitlines()
    assert len(lines) == 2
    for line in lines:
        best, second = line.split("\t")
        assert best != second


@pytest.mark.slow
def test_bad_lines_of_a_file_are_named_and_the_others_done(command, preset, tmp_path):
    file = tmp_path / "texts.txt"
    lines = [b"three", b"", b"\xff\xfe", "vier 😀".encode(), b"\x01\x02", b"word " * 10_000, b"nine"]
    file.write_bytes(b"\n".join(lines) + b"\n")
    found = command("predict", preset, "--file", file, "--json")
    assert found.returncode == 2
    says = found.stderr.splitlines()
    assert [line.split(":")[1] for line in says] == [f" input {number}" for number in (2, 3, 5, 6)]
    assert "is empty" in says[0]
    assert "byte 1 is not UTF-8" in says[1]
    assert "is empty" in says[2]
    assert "tokens, the model takes 63; split it up" in says[3]
    assert all(len(line) < 200 for line in says)
    results = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(results) == len(lines)
    assert ["output" in result for result in results] == [True, False, False, True, False, False, True]
    assert ["error" in result for result in results] == [False, True, True, False, True, True, False]
    assert results[3]["input"] == "vier 😀"


@pytest.mark.slow
def test_without_json_a_bad_line_leaves_an_empty_one(command, preset):
    found = command("predict", preset, stdin="three\n\nnine\n")
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
    three, nothing, nine = found.stdout.splitlines()
    assert (bool(three), bool(nothing), bool(nine)) == (True, False, True)


@pytest.mark.slow
def test_an_unknown_setting_names_the_nearest(complaint, preset):
    assert "did you mean 'beams'?" in complaint("predict", preset, "three", "--set", "beam=3")


@pytest.mark.slow
def test_evaluate_json(answers, preset):
    report = json.loads(
        answers("evaluate", preset, "--data", "toy:numbers/en-de", "--split", "test", "--limit", "5", "--json")
    )
    assert report.keys() == {"preset", "data", "split", "examples", "metrics", "signatures", "settings"}
    assert (report["data"], report["split"], report["examples"]) == ("toy:numbers/en-de", "test", 5)
    assert report["metrics"].keys() == {"bleu", "bleu_lowercase", "chrf", "loss"}
    assert report["signatures"].keys() == {"bleu", "bleu_lowercase", "chrf"}
    assert report["settings"]["beams"] == 1
    assert 0 <= report["metrics"]["bleu"] <= 100
    # An untrained model of 200 tokens is at ln 200; a few steps bring it below.
    assert 0 < report["metrics"]["loss"] < 5.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "magic", "chosen"),
    [
        ("maps.png", b"\x89PNG", ["--kind", "encoder", "--layer", 1, "--head", "mean"]),
        ("maps.html", b"<!doctype html>", ["--head", 2]),
    ],
)
def test_attention_draws_a_picture(answers, preset, name, magic, chosen, tmp_path):
    assert answers("attention", preset, "forty-two", "--out", tmp_path / name, *chosen) == f"{tmp_path / name}\n"
    assert (tmp_path / name).read_bytes().startswith(magic)


# === Training ===


def test_a_trained_preset_has_all_that_it_needs(preset):
    names = {path.name for path in preset.iterdir()}
    assert {"preset.json", "recipe.json", "tokenizer.json", "weights.safetensors", "checkpoint.safetensors"} <= names
    assert any((preset / "logs" / "train").iterdir())
    recipe = json.loads((preset / "preset.json").read_text(encoding="utf-8"))["recipe"]
    assert recipe["training"]["steps"] == 24
    assert recipe["model"]["width"] == 16


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_end(command, preset, tmp_path):
    out = tmp_path / "run"
    arguments = [*TRAIN, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("step 8/24"):
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130, said
    process.stderr.close()
    (stopped,) = [line for line in said if line.startswith("interrupted at step ")]
    assert "the same command goes on from there" in stopped
    assert said[-1] == "zoo: interrupted\n"

    found = command(*arguments)
    assert found.returncode == 0, found.stderr
    steps = [int(line.split("/")[0].removeprefix("step ")) for line in found.stderr.splitlines() if "train:" in line]
    assert steps[0] > 8
    assert steps[-1] == 24
    # Bit for bit where a run that nobody interrupted ended.
    for name in ("weights.safetensors", "tokenizer.json", "preset.json", "recipe.json"):
        assert (out / name).read_bytes() == (preset / name).read_bytes(), name
    mine, theirs = (safetensors.numpy.load_file(folder / "checkpoint.safetensors") for folder in (out, preset))
    assert mine.keys() == theirs.keys()
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)


@pytest.mark.slow
def test_another_recipe_is_refused_in_the_same_folder(complaint, preset):
    before = {path: path.stat().st_mtime_ns for path in preset.rglob("*")}
    line = complaint(*TRAIN, "training.steps=25", "--out", preset)
    assert f"--out {preset}: it holds a run of another recipe" in line
    assert "training.steps was 24, is 25" in line
    assert {path: path.stat().st_mtime_ns for path in preset.rglob("*")} == before


@pytest.fixture
def files(tmp_path):
    """Training files with something wrong, by name."""
    good = "".join(f"{pair['source']}\t{pair['target']}\n" for pair in toy.numbers("en-de", 40))
    texts = {
        "good.tsv": good,
        "broken.tsv": good + "one\teins\tun\n" + good,
        "empty.tsv": "",
        "control.tsv": "\x01\t\x02\n" * 20,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ("broken.tsv", [], "broken.tsv, line 41: 3 columns: 'one\\teins\\tun'; it takes 2 columns"),
        ("missing.tsv", [], "missing.tsv: no such file"),
        ("good.tsv", ["--dev", "empty.tsv"], "empty.tsv: the file is empty"),
        ("good.tsv", ["--set", "training.stesp=3"], "did you mean 'steps'?"),
        (
            "good.tsv",
            ["--set", "model.vocabulary_size=30000"],
            "vocabulary_size: 30000 tokens asked, the corpus allows",
        ),
        ("control.tsv", [], "control.tsv, line 1: nothing in column 'source'"),
    ],
    ids=["broken line", "missing file", "empty dev split", "unknown field", "large vocabulary", "control characters"],
)
def test_training_stops_before_any_work(complaint, files, data, options, says):
    options = [files / option if option.endswith(".tsv") else option for option in options]
    assert says in complaint("train", "translation", "--data", f"tsv:{files / data}", "--out", files / "run", *options)
    assert not (files / "run").exists()
