"""The command line: zoo list | demo | predict | evaluate | train | attention | doctor."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from zoo.config import BFLOAT16_FLAGS, ConfigError, nearest

# Every command imports what it needs itself, so that `zoo list` answers without TensorFlow.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: As on the command line; sys.argv's where None.

    Returns:
        The exit status: 0, or 2 after one line on standard error; 130 after Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = _parser().parse_args(arguments)
    warnings.showwarning = _warn  # type: ignore[assignment]
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}" if error.strerror else str(error))
    except (ValueError, RuntimeError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"zoo: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _warn(message: Warning | str, category: type[Warning], *where: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"zoo: {message}", file=sys.stderr)


def _import_backend() -> None:
    """Imports Keras and its backend without the greetings that TensorFlow's libraries print on standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import keras  # noqa: F401
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _load(name: str) -> Any:
    """Loads a preset; one that does not exist is said before TensorFlow is imported."""
    import zoo
    from zoo.presets import find

    find(name)
    _import_backend()
    return zoo.load(name)


def _task_of(name: str) -> Any:
    """Finds the class of a task, or of a preset's task, without loading a model."""
    from zoo.presets import find, read_card
    from zoo.tasks import TASKS, task_class

    task = name if name in TASKS else read_card(find(name))["recipe"]["task"]
    _import_backend()
    return task_class(task)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zoo", description="Prebuilt Keras models for text and images.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    sub = command(list_presets, "list", "Lists presets, tasks and models.")
    sub.add_argument("--task", help="only this task's presets")
    sub.add_argument("--json", action="store_true", help="prints JSON")

    sub = command(demo, "demo", "Runs every shipped preset on real input, with attention pictures.")
    sub.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures (default: demo)")

    sub = command(predict, "predict", "Runs a preset on texts, or on files of images.")
    sub.add_argument("preset", help="a shipped preset, a folder, or hf://owner/name")
    sub.add_argument("input", nargs="*", help="texts or files; standard input's lines where there is none")
    sub.add_argument("--file", type=Path, help="a UTF-8 file with one input a line")
    sub.add_argument("--json", action="store_true", help="prints one JSON object an input")
    _add_window(sub)
    _add_set(sub, "a field of the generation settings, for example beams=1")

    sub = command(evaluate, "evaluate", "Scores a preset on labelled data; prints JSON with --json.")
    sub.add_argument("preset", help="a shipped preset or a folder; with --baseline also a task")
    _add_data(sub, required=True)
    sub.add_argument("--split", help="the split (default: test; all of a file)")
    sub.add_argument("--limit", type=int, help="only the first N examples")
    sub.add_argument("--baseline", metavar="NAME", help="scores lead-3, longest-3 ... instead of a model's summaries")
    sub.add_argument("--json", action="store_true", help="prints JSON")
    _add_window(sub)
    _add_set(sub, "a field of the generation settings, for example beams=1")

    sub = command(train, "train", "Trains a recipe; the same command goes on with a run that was stopped.")
    sub.add_argument("recipe", help="a preset's name, a JSON file, or a task: its default recipe")
    _add_data(sub, required=False)
    sub.add_argument("--dev", help="development examples: a SOURCE, or a file in the format of --data")
    sub.add_argument("--out", type=Path, help="folder for the trained preset and the run's checkpoints")
    sub.add_argument("--logdir", type=Path, help="folder for TensorBoard (default: OUT/logs)")
    sub.add_argument("--histograms", action="store_true", help="shows in TensorBoard how each weight is spread")
    sub.add_argument("--profile", type=_steps, metavar="A..B", help="profiles steps A to B, for TensorBoard")
    _add_choice(sub, "TensorBoard shows it of dev examples")
    sub.add_argument(
        "--strategy",
        metavar="WORD",
        help="several devices: mirrored, multi-worker or tpu; on the jax backend data-parallel or model-parallel=N",
    )
    sub.add_argument(
        "--bfloat16",
        action="store_true",
        help="multiplies matrices in bfloat16: twice as fast on CPUs that can (AMX, AVX512-BF16)",
    )
    sub.add_argument("--init", metavar="PRESET", help="begins with this preset's vocabulary and weights")
    _add_set(sub, "a field of the recipe, for example training.steps=100")

    sub = command(attention, "attention", "Draws where a preset's heads look.")
    sub.add_argument("preset", help="a shipped preset or a folder")
    sub.add_argument("input", help="a text, or a file with an image")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE.html|FILE.png")
    _add_choice(sub, "a .png shows it alone, a .html begins with it")

    sub = command(
        doctor,
        "doctor",
        "Says which backend, devices, compiler and precision are truly active; or, with --tpu, what a recipe would "
        "take and do on TPUs, found out by compiling for them (needs jax[tpu], and no TPU).",
    )
    sub.add_argument(
        "recipe", nargs="?", help="with --tpu: a preset's name, a JSON file, or a task: its default recipe"
    )
    sub.add_argument("--tpu", metavar="TOPOLOGY", help="a chip and how many: v5e:1x1, v5e:2x2, v6e:4x4 ...")
    sub.add_argument("--batch", type=int, metavar="N", help="rows of a training batch, all chips' together")
    _add_data(sub, required=False)
    _add_set(sub, "a field of the recipe, for example training.precision=mixed_bfloat16")
    return parser


def _head(text: str) -> int | str:
    if text == "mean":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; it takes a number from 1, or mean") from None


def _steps(text: str) -> tuple[int, int]:
    first, separator, last = text.partition("..")
    if not (separator and first.isdecimal() and last.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}; it takes two steps, such as 100..110")
    return int(first), int(last)


def _add_choice(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--kind", choices=("encoder", "decoder", "cross"), help=f"a kind of attention: {what}")
    parser.add_argument("--layer", type=int, metavar="N", help=f"a layer, from 1: {what}")
    parser.add_argument("--head", type=_head, metavar="N|mean", help=f"a head, from 1, or the mean of all: {what}")


def _add_data(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--data", required=required, metavar="SOURCE", help="multi30k/en-de, tfds:NAME, tsv:FILE ...")
    parser.add_argument("--data-dir", type=Path, help="where the raw files of the zoo's own data sets are")
    parser.add_argument("--field", action="append", default=[], metavar="OURS=THEIRS", help="names a column or feature")


def _add_set(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)


def _add_window(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--window",
        dest="set",
        action="append_const",
        const="window=true",
        default=[],
        help="reads long texts in overlapping windows instead of cutting them off",
    )


def _fields(options: argparse.Namespace) -> dict[str, str] | None:
    for field in options.field:
        if "=" not in field:
            raise ConfigError(f"--field {field!r}: it takes OURS=THEIRS, for example source=en")
    return dict(field.split("=", 1) for field in options.field) or None


def list_presets(options: argparse.Namespace) -> None:
    from zoo.models import MODELS
    from zoo.presets import read_card, shipped, stored_bytes
    from zoo.tasks import TASKS

    if options.task is not None and options.task not in TASKS:
        raise ConfigError(f"--task {options.task!r}: {nearest(options.task, TASKS)}")
    presets = []
    for name, folder in shipped().items():
        card = read_card(folder)
        if options.task in (None, card["recipe"]["task"]):
            presets.append(
                {
                    "name": name,
                    "task": card["recipe"]["task"],
                    "parameters": card.get("parameters"),
                    "bytes": stored_bytes(folder),
                    "score": card.get("score", {}),
                }
            )
    if options.json:
        print(json.dumps({"presets": presets, "tasks": list(TASKS), "models": list(MODELS)}, indent=2))
        return
    for preset in presets:
        score = ", ".join(f"{name} {value}" for name, value in preset["score"].items())
        print(
            f"{preset['name']:32} {preset['task']:14} {preset['parameters'] / 1e6:6.2f} M parameters  "
            f"{preset['bytes'] / 1e6:6.2f} MB  {score}"
        )
    print(f"tasks: {', '.join(TASKS)}\nmodels: {', '.join(MODELS)}")


def demo(options: argparse.Namespace) -> None:
    from zoo.presets import shipped
    from zoo.tasks import as_line

    if not shipped():
        print("no preset is shipped with this checkout; `zoo train translation --out DIR` makes one")
    for name in shipped():
        try:
            task = _load(name)
        except FileNotFoundError as error:  # the pretrained encoder that a preset stands on
            print(f"{name}: left out: {error}")
            continue
        inputs = task.demo
        print(f"{name}  ({task.model.count_params() / 1e6:.2f} M parameters)")
        for text, report in zip(inputs, task.report(inputs)):
            print(f"  {text}\n    -> {as_line(report)}")
        for suffix in (".png", ".html"):
            picture = options.out / f"{name}{suffix}"
            task.attention_maps(inputs[0]).save(picture)
            print(f"  attention: {picture}")


def predict(options: argparse.Namespace) -> int:
    from zoo.tasks import as_line

    if options.file is not None and options.input:
        raise ConfigError("predict: give texts or --file, not both")
    lines = options.input
    if options.file is not None:
        lines = options.file.read_bytes().splitlines()
    elif not lines:
        lines = sys.stdin.buffer.read().splitlines()
    if not lines:
        raise ConfigError("predict: no input; give texts, --file FILE, or lines on standard input")

    task = _load(options.preset)
    settings = task.settings(options.set)
    results: list[dict[str, Any]] = []
    for line in lines:
        try:
            text = line if isinstance(line, str) else line.decode("utf-8")
            task.check(text)
            results.append({"input": text})
        except UnicodeDecodeError as error:
            results.append({"input": line.decode("utf-8", "replace"), "error": f"byte {error.start + 1} is not UTF-8"})
        except ValueError as error:
            results.append({"input": text, "error": str(error)})
    good = [result for result in results if "error" not in result]
    reports = task.report([result["input"] for result in good], **settings) if good else []
    for result, report in zip(good, reports):
        result.update(report)
    for number, result in enumerate(results, 1):
        if "error" in result:
            print(f"zoo: input {number}: {result['error']}", file=sys.stderr)
        if options.json:
            print(json.dumps(result, ensure_ascii=False))
        else:  # a bad line leaves an empty one, so that outputs stay beside their inputs
            print(as_line(result))
    return 0 if len(good) == len(results) else 2


def evaluate(options: argparse.Namespace) -> None:
    import zoo

    task = _task_of(options.preset) if options.baseline else _load(options.preset)
    settings = {"baseline": options.baseline} if options.baseline else task.settings(options.set)
    split = options.split or ("train" if options.data.startswith(("tsv:", "jsonl:")) else "test")
    examples = zoo.data.load(options.data, split, data_dir=options.data_dir, fields=_fields(options))
    if options.limit is not None:
        if options.limit < 1:
            raise ConfigError(f"--limit {options.limit}: it is at least 1")
        examples = examples[: options.limit]
    if options.baseline:
        metrics = task.evaluate_baseline(options.baseline, examples)
    else:
        metrics = task.evaluate(examples, **settings)
    signatures = metrics.pop("signatures", {})
    report = {
        "preset": options.preset,
        "data": options.data,
        "split": split,
        "examples": len(examples),
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
        "signatures": signatures,
        "settings": settings,
    }
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    print(f"{options.preset} on {options.data}, split {split}, {len(examples)} examples")
    for name, value in metrics.items():
        print(f"  {name:16} {value:8.3f}  {signatures.get(name, '')}")


def train(options: argparse.Namespace) -> None:
    from zoo.data import load_train_and_dev
    from zoo.tasks import check_recipe_name

    check_recipe_name(options.recipe)
    if options.bfloat16:
        os.environ["TF_XLA_FLAGS"] = f"{os.environ.get('TF_XLA_FLAGS', '')} {BFLOAT16_FLAGS}"
        options.set.append("training.matmul=bfloat16")
    _import_backend()
    from zoo.training.distribution import open_strategy

    distribution = open_strategy(options.strategy)  # before anything is computed
    from zoo.tasks.run import open_run, read_recipe
    from zoo.tasks.showing import Showing

    recipe = read_recipe(options.recipe, options.data, options.set)
    examples, dev = load_train_and_dev(
        recipe.source, dev=options.dev, data_dir=options.data_dir, fields=_fields(options), seed=recipe.training.seed
    )
    task = open_run(recipe, examples, options.out, options.init, writes=distribution.is_chief)
    print(
        f"{recipe.task}: {len(examples)} training and {len(dev)} dev examples, "
        f"{task.model.count_params() / 1e6:.2f} M parameters",
        file=sys.stderr,
    )
    for line in task.describe(examples):
        print(line, file=sys.stderr)
    logdir = options.logdir or (options.out / "logs" if options.out else None)
    showing = Showing(
        kind=options.kind, layer=options.layer, head=options.head or "mean", histograms=options.histograms
    )
    position = task.fit(
        examples,
        dev,
        out=options.out,
        logdir=logdir,
        showing=showing,
        profile=options.profile,
        strategy=distribution,
    )
    monitor = recipe.training.monitor
    best = f"best dev {monitor} {abs(position.best):.4g}, " if position.best is not None else ""
    print(f"{best}{position.step} steps, {position.seconds / 60:.1f} minutes of training")
    if options.out is not None and distribution.is_chief:
        print(f"saved: {options.out}    use it: zoo predict {options.out} ...")


def attention(options: argparse.Namespace) -> None:
    if options.out.suffix not in (".png", ".html"):
        raise ConfigError(f"--out {options.out}: it takes a name that ends with .png or .html")
    maps = _load(options.preset).attention_maps(options.input)
    maps.save(options.out, options.kind, options.layer, options.head)
    print(options.out)


def doctor(options: argparse.Namespace) -> None:
    if options.tpu is not None:
        return _doctor_for_tpu(options)
    if options.recipe is not None:
        raise ConfigError(f"doctor {options.recipe}: a recipe is looked at with --tpu TOPOLOGY --batch N")
    _import_backend()
    from zoo.doctor import examine

    for name, finding in examine().items():
        print(f"{name:12} {finding}")


def _doctor_for_tpu(options: argparse.Namespace) -> None:
    from zoo.ahead.chips import check_topology, find_compiler
    from zoo.tasks import check_recipe_name

    check_topology(options.tpu)
    if options.recipe is None or options.batch is None:
        raise ConfigError("doctor --tpu: it takes a RECIPE and --batch N too")
    check_recipe_name(options.recipe)
    find_compiler()
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    _import_backend()
    from zoo.ahead.report import report
    from zoo.data import load_train_and_dev

    def examples(recipe: Any) -> Sequence[Any]:
        found, _ = load_train_and_dev(
            options.data or recipe.source, data_dir=options.data_dir, fields=_fields(options), seed=recipe.training.seed
        )
        return found

    for name, finding in report(options.tpu, options.recipe, options.batch, examples, options.set):
        print(f"{name:12} {finding}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
