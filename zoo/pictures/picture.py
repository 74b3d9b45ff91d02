"""What pictures share: they are saved as a PNG, or as a page that loads nothing from anywhere."""

import abc
from html import escape
from pathlib import Path
from typing import Any

from zoo.files import replacing


class Picture(abc.ABC):
    """Something that can be drawn as a matplotlib figure and written as a page of HTML."""

    @abc.abstractmethod
    def to_figure(self) -> Any:
        """Draws a matplotlib figure."""

    @abc.abstractmethod
    def to_html(self) -> str:
        """Returns one page that loads nothing from anywhere."""

    def save(self, path: str | Path) -> None:
        """Writes the figure to a .png, or the page to a .html.

        Raises:
            ValueError: If the name ends with neither.
        """
        path = Path(path)
        if path.suffix == ".html":
            with replacing(path) as temporary:
                temporary.write_text(self.to_html(), encoding="utf-8")
        elif path.suffix == ".png":
            figure = self.to_figure()
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=120)
        else:
            raise ValueError(f"path: {path} ends with {path.suffix!r}; a picture ends with .png or .html")

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.to_html())}" style="width:100%;height:640px;border:0"></iframe>'
