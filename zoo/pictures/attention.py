"""Attention maps of a source and its target, as a PNG or as a page to click through."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from zoo.pictures.picture import Picture


@dataclasses.dataclass(frozen=True)
class AttentionMaps(Picture):
    """Where every head of every layer looks, for one source and one target.

    save() writes every map to a .html, the cross-attention of every layer and head to a .png.

    Args:
        source_tokens: S tokens.
        target_tokens: The T tokens that the decoder read: the start token, then the target.
        maps: Layer path -> (N, queries, keys). A path with "encoder/" goes from source to source, one with
            "cross_attention" from target to source, all others from target to target.
    """

    source_tokens: Sequence[str]
    target_tokens: Sequence[str]
    maps: dict[str, np.ndarray]

    def tokens(self, path: str) -> tuple[Sequence[str], Sequence[str]]:
        """Returns the tokens beside a map: those of its queries, and those of its keys.

        A decoder's query is named after the token that comes of it, not the one that was read: whoever asks where
        the model looked when it wrote "Hunde" finds it in the row "Hunde".
        """
        if path.startswith("encoder/"):
            return self.source_tokens, self.source_tokens
        written = [*self.target_tokens[1:], "</s>"]
        return written, self.source_tokens if "cross_attention" in path else self.target_tokens

    def to_figure(self):
        """Draws the cross-attention as a matplotlib figure: a row for each layer, a column for each head.

        Where there is no cross-attention, all maps are drawn.
        """
        from matplotlib.figure import Figure

        paths = [path for path in self.maps if "cross_attention" in path] or list(self.maps)
        heads = max(len(self.maps[path]) for path in paths)
        queries, keys = self.tokens(paths[0])
        width, height = 1.2 + 0.24 * len(keys), 1.0 + 0.24 * len(queries)
        figure = Figure(figsize=(width * heads, height * len(paths)), layout="constrained")
        grid = figure.subplots(len(paths), heads, squeeze=False)
        for row, path in zip(grid, paths):
            queries, keys = self.tokens(path)
            for head, axes in enumerate(row):
                if head >= len(self.maps[path]):
                    axes.set_axis_off()
                    continue
                axes.imshow(self.maps[path][head], cmap="magma_r", vmin=0, vmax=1, aspect="auto")
                axes.set_xticks(range(len(keys)), keys, rotation=90, fontsize=7)
                axes.set_yticks(range(len(queries)), queries, fontsize=7)
                axes.set_title(f"{path}  head {head + 1}", fontsize=7)
        return figure

    def to_html(self) -> str:
        """Returns one page that shows any layer's heads; it loads nothing from anywhere."""
        data = {
            path: {"queries": self.tokens(path)[0], "keys": self.tokens(path)[1], "heads": np.round(heads, 4).tolist()}
            for path, heads in self.maps.items()
        }
        # "<" is escaped so that no token can close the script element.
        return _PAGE.replace("DATA", json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Attention maps</title>
<style>
  body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
  select { font: inherit; padding: .2rem; }
  #heads { display: flex; flex-wrap: wrap; gap: 2rem; margin-top: 1rem; }
  table { border-collapse: collapse; }
  caption { font-weight: 600; text-align: left; padding-bottom: .4rem; }
  th { font-weight: 400; font-size: 12px; color: #444; white-space: nowrap; }
  th.query { text-align: right; padding-right: .5rem; }
  th.key { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .3rem 0; }
  td { width: 20px; height: 20px; min-width: 20px; }
  td:hover { outline: 2px solid #222; }
  #says { min-height: 1.4em; color: #555; }
</style>
<label>Layer <select id="layer"></select></label>
<p id="says">Rows look at columns; point at a square.</p>
<div id="heads"></div>
<script>
const maps = DATA;
const layer = document.getElementById("layer"), heads = document.getElementById("heads");
const says = document.getElementById("says");
function cell(tag, text, name) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}
function draw() {
  const map = maps[layer.value];
  heads.replaceChildren(...map.heads.map((weights, head) => {
    const table = document.createElement("table");
    table.append(cell("caption", "head " + (head + 1)));
    const top = table.insertRow();
    top.append(cell("th", ""), ...map.keys.map(key => cell("th", key, "key")));
    weights.forEach((row, q) => {
      const line = table.insertRow();
      line.append(cell("th", map.queries[q], "query"));
      row.forEach((weight, k) => {
        const square = line.insertCell();
        square.style.background = `rgba(90, 24, 154, ${weight})`;
        square.onmouseenter = () => {
          says.textContent = `${map.queries[q]} looks at ${map.keys[k]}: ${(100 * weight).toFixed(1)} %`;
        };
      });
    });
    return table;
  }));
}
for (const path of Object.keys(maps)) layer.append(new Option(path, path));
layer.value = Object.keys(maps).filter(path => path.includes("cross_attention")).pop() || Object.keys(maps).pop();
layer.onchange = draw;
draw();
</script>
</html>
"""
