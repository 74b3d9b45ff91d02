"""What the documentation shows of the project itself: written into docs/generated before Sphinx reads the pages."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"

# Row -> column -> figure.
Table = Mapping[str, Mapping[str, float]]


def generate() -> None:
    """Writes the presets' table and cards, the commands' options, the notebooks, and what benchmarks found."""
    from zoo.presets import shipped
    from zoo.tasks.card import presets_table

    shutil.rmtree(GENERATED, ignore_errors=True)
    for folder in ("presets", "notebooks"):
        (GENERATED / folder).mkdir(parents=True)
    (GENERATED / "presets.txt").write_text(presets_table("generated/presets/NAME.md"), encoding="utf-8")
    for name, folder in shipped().items():
        shutil.copy(folder / "README.md", GENERATED / "presets" / f"{name}.md")
    (GENERATED / "commands.txt").write_text(commands(), encoding="utf-8")
    notebooks = sorted(ROOT.glob("notebooks/*.ipynb"))
    for notebook in notebooks:
        shutil.copy(notebook, GENERATED / "notebooks")
    contents = "```{toctree}\n:caption: Notebooks\n:hidden:\n:glob:\n\ngenerated/notebooks/*\n```\n"
    (GENERATED / "notebooks.txt").write_text(contents if notebooks else "", encoding="utf-8")

    scaling = json.loads((ROOT / "benchmarks" / "scaling.json").read_text(encoding="utf-8"))
    (GENERATED / "scaling.txt").write_text(scaling_table(scaling), encoding="utf-8")

    tables = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    figures = {
        "training": bars({"seconds a step": tables["Training step"]}),
        "generation": bars(
            {
                f"{title}: tokens/s": tables[name]
                for title, name in {
                    "4 + 4 layers of width 128": "Generation",
                    "6 + 6 layers of width 512": "A hub model for translation",
                }.items()
            }
        ),
        "attention": curves({title: tables[title] for title in ("forward", "forward and backward")}, "seconds"),
        "long_documents": curves({"": turned(tables["Long documents"])}, "microseconds a token"),
    }
    for name, figure in figures.items():
        figure.savefig(GENERATED / f"{name}.svg")


def scaling_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Writes what benchmarks/scaling.py found, a row for each size and slice."""
    from zoo.ahead.chips import chip_count

    columns = ("parameters", "chips", "state", "rows a chip", "memory a chip", "products", "memory", "links")
    columns += ("links = products at", "tokens/s", "$ for 10^9 tokens")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for found in results:
        chips = chip_count(found["topology"])
        cells = [f"{found['parameters'] / 1e6:,.0f} M", chips]
        if "layout" in found:
            rows, seconds = found["rows a chip"], found["seconds"]
            cells += [found["layout"], rows, f"{found['bytes a chip'] / 2**30:.1f} GiB"]
            cells += [f"{seconds[part] * 1e3:,.0f} ms" for part in ("products", "memory", "links")]
            cells.append(f"{seconds['links'] * rows / seconds['products']:.2g} rows" if chips > 1 else "")
            tokens = float(f"{found['tokens a second']:.3g}")
            cells += [f"{tokens:,.0f}", f"{found['dollars a billion tokens']:,.2f}"]
        else:
            cells += ["does not fit"] + [""] * (len(columns) - 3)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Writes a section for each command of `zoo`, with its options."""
    from zoo.cli import _parser

    os.environ["COLUMNS"] = "88"
    (action,) = (action for action in _parser()._actions if action.choices)
    return "\n".join(f"## zoo {name}\n\n```text\n{sub.format_help()}```\n" for name, sub in action.choices.items())


def bars(panels: Mapping[str, Table]) -> Figure:
    """Draws each row of a table as bars, one a column; one panel a table."""
    rows = max(len(table) for table in panels.values())
    figure = Figure(figsize=(3 + 2.2 * len(panels), 0.8 + 0.42 * rows), layout="constrained")
    for axes, (title, table) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        columns = list(next(iter(table.values())))
        thickness = 0.8 / len(columns)
        for number, column in enumerate(columns):
            places = [row + (number - (len(columns) - 1) / 2) * thickness for row in range(len(table))]
            drawn = axes.barh(
                places, [row[column] for row in table.values()], thickness * 0.9, label=column.split(",")[0]
            )
            axes.bar_label(drawn, fmt="{:,g}", padding=2, fontsize=8)
        axes.set_yticks(range(len(table)), [name.replace("`", "") for name in table])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    if len(columns) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(columns), fontsize=8)
    return figure


def curves(panels: Mapping[str, Table], unit: str) -> Figure:
    """Draws each row of a table over its columns, which are lengths; one panel a table."""
    figure = Figure(figsize=(3.2 * len(panels) + 1.8, 3.6), layout="constrained")
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, table) in zip(drawn, panels.items()):
        lengths = sorted({int(column.replace(",", "")) for row in table.values() for column in row})
        for name, row in table.items():
            style = "--" if name in ("torch", "keras layer") else "-"
            axes.plot([int(column.replace(",", "")) for column in row], row.values(), style, marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="tokens", title=title)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    drawn[0].set_ylabel(unit)
    figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def turned(table: Table) -> Table:
    """Exchanges rows and columns."""
    return {column: {row: table[row][column] for row in table} for column in next(iter(table.values()))}
