"""What pictures share: they are saved as a PNG, or as a page that loads nothing from anywhere."""

import abc
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from zoo.files import replacing
from zoo.pictures.heads import Head, Kind


class Picture(abc.ABC):
    """Maps of attention that can be drawn as a matplotlib figure and written as a page of HTML.

    Each way takes the same choice: `kind` is "encoder", "decoder" or "cross", `layer` and `head` are numbers from 1,
    and `head` may be "mean". A figure shows that alone; a page holds everything and begins with it.
    """

    @abc.abstractmethod
    def kinds(self) -> Sequence[Kind]:
        """Returns the maps, by kind of attention."""

    @abc.abstractmethod
    def to_figure(self, kind: str | None = None, layer: int | None = None, head: Head | None = None) -> Any:
        """Draws a matplotlib figure."""

    @abc.abstractmethod
    def to_html(self, kind: str | None = None, layer: int | None = None, head: Head | None = None) -> str:
        """Returns one page that loads nothing from anywhere."""

    def save(
        self, path: str | Path, kind: str | None = None, layer: int | None = None, head: Head | None = None
    ) -> None:
        """Writes the figure to a .png, or the page to a .html.

        Raises:
            ValueError: If the name ends with neither, or what is chosen is not there.
        """
        path = Path(path)
        if path.suffix == ".html":
            text = self.to_html(kind, layer, head)
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        elif path.suffix == ".png":
            figure = self.to_figure(kind, layer, head)
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=120)
        else:
            raise ValueError(f"path: {path} ends with {path.suffix!r}; a picture ends with .png or .html")

    def _repr_html_(self) -> str:
        # A frame of its own: several views in one notebook share no name and no style.
        return (
            f'<iframe srcdoc="{escape(self.to_html())}" title="Attention maps" '
            'style="width:100%;height:640px;border:0"></iframe>'
        )
