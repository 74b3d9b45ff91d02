"""Times a pretrained MiniLM on classification next to transformers + torch: loading, fine-tuning, prediction.

Both sides start from the same folder and the same labelled texts, float32, in this one process:

    zoo           zoo.load / ClassificationRecipe(base=...): length buckets, one XLA program a bucket
    transformers  AutoModelForSequenceClassification, torch, eager; batches padded to their longest text, which is what
                  its Trainer and its pipeline do

The epoch is AdamW over all weights with clipping to norm 1, batches of 32, dropout as in the checkpoint; the sides
take turns over shares of it. zoo's compilation is timed apart, and the epoch is reported with and without it.
Prediction goes once over all texts in the order given; "sorted" is the same by transformers with the texts sorted by
length, which its users have to do themselves. Loading runs in fresh processes, after imports.

    .venv-peers/bin/python benchmarks/classification.py [--data sst2] [--json FILE]
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from alternation import alternate, describe_ratio, machine, ratio, write_json

ZOO, TRANSFORMERS, SORTED = "zoo", "transformers", "transformers, sorted"
PACKAGES = ("tensorflow", "keras", "torch", "transformers")
BATCH, LEARNING_RATE = 32, 5e-5


class ZooSide:
    """Fine-tunes and predicts by the zoo."""

    def __init__(self, folder: str, examples: list[dict[str, str]], buckets: tuple[int, ...]):
        from zoo.data.texts import TextBatchingConfig
        from zoo.tasks.classification import Classification, ClassificationRecipe
        from zoo.training import OptimizerConfig, make_optimizer, make_train_step

        recipe = ClassificationRecipe(base=folder, batching=TextBatchingConfig(buckets=buckets, batch_size=BATCH))
        heads = {name: dataclasses.replace(head, pooling="first") for name, head in recipe.model.heads.items()}
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, heads=heads))
        self.task = Classification.from_examples(recipe, examples)
        self.texts = [example["text"] for example in examples]
        self.batches = self.task.batches(examples)
        optimizer = make_optimizer(
            OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant", warmup_steps=1), steps=1000
        )
        self.step = make_train_step(self.task.model, optimizer, self.task.loss, clip_norm=1.0)

    def warm_up(self) -> float:
        """Compiles the step and the prediction for every bucket; returns the seconds of the step's part."""
        began = time.perf_counter()
        seen: set[int] = set()
        for bucket, rows in self.batches.plan(0):
            if bucket not in seen:
                seen.add(bucket)
                float(self.step(self.batches.batch(bucket, rows))["loss"])
        seconds = time.perf_counter() - began
        self.predict(self.texts)
        return seconds

    def train(self, share: int, shares: int) -> float:
        """Trains on a share of the epoch; returns seconds a text."""
        plan = self.batches.plan(0)[share::shares]
        began = time.perf_counter()
        for planned in plan:
            metrics = self.step(self.batches.batch(*planned))
        float(metrics["loss"])
        return (time.perf_counter() - began) / sum(len(rows) for _, rows in plan)

    def predict(self, texts: list[str]) -> float:
        """Classifies texts; returns texts a second."""
        began = time.perf_counter()
        self.task(texts)
        return len(texts) / (time.perf_counter() - began)


class TransformersSide:
    """Fine-tunes and predicts by transformers on torch."""

    def __init__(self, folder: str, examples: list[dict[str, str]]):
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        torch.set_num_threads(os.cpu_count() or 1)
        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, weight_decay=0.01, fused=True)
        self.texts = [example["text"] for example in examples]
        classes = sorted({example["label"] for example in examples})
        self.labels = torch.tensor([classes.index(example["label"]) for example in examples])
        self.order = np.random.default_rng(0).permutation(len(examples))

    def train(self, share: int, shares: int) -> float:
        """Trains on a share of the epoch; returns seconds a text."""
        self.model.train()
        starts = range(0, len(self.order), BATCH)[share::shares]
        count = 0
        began = time.perf_counter()
        for start in starts:
            rows = self.order[start : start + BATCH]
            count += len(rows)
            inputs = self.tokenizer([self.texts[i] for i in rows], padding=True, return_tensors="pt")
            self.optimizer.zero_grad()
            self.model(**inputs, labels=self.labels[rows]).loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return (time.perf_counter() - began) / count

    def predict(self, texts: list[str], by_length: bool = False) -> float:
        """Classifies texts; returns texts a second."""
        self.model.eval()
        began = time.perf_counter()
        if by_length:
            texts = sorted(texts, key=len)
        with self.torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                inputs = self.tokenizer(texts[start : start + BATCH], padding=True, return_tensors="pt")
                self.model(**inputs).logits.argmax(dim=-1)
        return len(texts) / (time.perf_counter() - began)


# === Loading ===

LOAD_ZOO = "import zoo, zoo.tasks.hub; load = lambda f: zoo.load(f)"
LOAD_TRANSFORMERS = "import transformers; load = lambda f: transformers.AutoModel.from_pretrained(f)"


def loading(code: str, folder: str) -> tuple[float, float]:
    """Loads a folder in a fresh process; returns seconds, and how far its memory grows meanwhile, in MiB."""
    measure = (
        f"import sys, time; sys.path.insert(0, {sys.path[0]!r}); {code}; "
        "memory = lambda kind: int(open('/proc/self/status').read().split(kind)[1].split()[0]) / 1024; "
        "open('/proc/self/clear_refs', 'w').write('5'); "  # forgets what imports needed at their peak
        f"before = memory('VmRSS:'); t = time.perf_counter(); load({folder!r}); "
        "print(time.perf_counter() - t, memory('VmHWM:') - before)"
    )
    out = subprocess.run([sys.executable, "-c", measure], check=True, capture_output=True, text=True).stdout
    seconds, memory = map(float, out.split()[-2:])
    return seconds, memory


# === The measurement ===


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Time MiniLM on classification, next to transformers + torch.")
    parser.add_argument("--base", default="hf://sentence-transformers/all-MiniLM-L6-v2", help="default: %(default)s")
    parser.add_argument("--data", default="sst2", help="labelled texts of two classes, a SOURCE; default: %(default)s")
    parser.add_argument("--texts", type=int, default=2000, help="the first so many; default: %(default)s")
    parser.add_argument("--shares", type=int, default=4, help="turns in the epoch; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="turns of prediction and loading; default: %(default)s")
    parser.add_argument("--buckets", type=int, nargs="+", default=[16, 32, 64], help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args(arguments)


def main() -> None:
    """Builds, warms up, measures and reports."""
    import zoo
    from zoo.presets.hub import find_hub_folder

    options = parse()
    folder = str(find_hub_folder(options.base))
    figures = {"benchmark": "classification", "settings": vars(options), "machine": machine(PACKAGES), "ratios": {}}
    print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    examples = zoo.data.load(options.data)[: options.texts]

    size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) / 2**20
    for name, code in ((ZOO, LOAD_ZOO), (TRANSFORMERS, LOAD_TRANSFORMERS)):
        seconds, memory = zip(*(loading(code, folder) for _ in range(options.rounds)))
        figures[f"load, {name}"] = {"seconds": seconds, "peak_growth_mib": memory, "file_mib": size}
        print(
            f"load, {name:<24} {statistics.median(seconds):.2f} s, peak memory grows by "
            f"{statistics.median(memory):.0f} MiB ({statistics.median(memory) / size:.1f} times the file)"
        )

    ours, theirs = ZooSide(folder, examples, tuple(options.buckets)), TransformersSide(folder, examples)
    compiling = ours.warm_up()
    theirs.train(0, 20 * options.shares)
    turns = {
        ZOO: partial(next, (ours.train(share, options.shares) for share in range(options.shares))),
        TRANSFORMERS: partial(next, (theirs.train(share, options.shares) for share in range(options.shares))),
    }
    seconds = alternate(turns, options.shares)
    figures["epoch"] = {"seconds_a_text": seconds, "compiling": compiling}
    for name, values in seconds.items():
        print(f"epoch, {name:<24} {statistics.mean(values) * len(examples):.1f} s")
    print(f"epoch, {ZOO}, with compilation: {compiling:.1f} s more")
    figures["ratios"]["epoch"] = ratio(seconds[ZOO], seconds[TRANSFORMERS])
    print(describe_ratio("epoch, zoo / transformers", figures["ratios"]["epoch"], "below 1, zoo is faster"))

    texts = ours.texts
    speeds = alternate(
        {
            ZOO: partial(ours.predict, texts),
            TRANSFORMERS: partial(theirs.predict, texts),
            SORTED: partial(theirs.predict, texts, by_length=True),
        },
        options.rounds,
    )
    figures["prediction"] = speeds
    for name, values in speeds.items():
        print(f"prediction, {name:<24} {statistics.median(values):.0f} texts/s")
    for name in (TRANSFORMERS, SORTED):
        figures["ratios"][f"prediction / {name}"] = ratio(speeds[ZOO], speeds[name])
        print(describe_ratio(f"prediction, zoo / {name}", figures["ratios"][f"prediction / {name}"], "above 1: faster"))
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
