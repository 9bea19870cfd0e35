"""Whether every link of the built site leads somewhere: pages, anchors, pictures, names.

    python docs/_links.py docs/_build/html

Links that leave the site are not followed. A name that was marked as a class or function but found
nowhere counts as a broken link too.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OTHER_PACKAGES = ("sklearn.", "scipy.", "numpy.", "torch.")


class Page(HTMLParser):
    """Anchors and links of a page, and names of this package that lead nowhere."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.lost = set(), [], []
        self.inside, self.name = 0, None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        """Collect what a tag defines and refers to."""
        found = dict(attributes)
        self.anchors.update(found[key] for key in ("id", "name") if found.get(key))
        self.links += [found[key] for key in ("href", "src") if found.get(key)]
        self.inside += tag == "a"
        if tag == "code":
            self.name = not self.inside and "xref" in (found.get("class") or "")

    def handle_endtag(self, tag):
        """Leave a link."""
        self.inside -= tag == "a"
        self.name = self.name and tag != "code"

    def handle_data(self, text):
        """A name outside any link was not found."""
        if self.name and not text.startswith(OTHER_PACKAGES):
            self.lost.append(text)


def has_anchor(page, name: str) -> bool:
    """Whether a page, if it is one, has an anchor, if one is named."""
    return page is None or not name or name in page.anchors


def broken(root: Path) -> list:
    """Links of all pages that lead nowhere, as ``page: link``."""
    paths = (path for path in root.rglob("*.html") if "_static" not in path.parts)
    pages = {path.resolve(): Page(path) for path in paths}
    found = []
    for path, page in pages.items():
        where = path.relative_to(root.resolve())
        found += [f"{where}: no such name {name}" for name in page.lost]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not (target.exists() and has_anchor(pages.get(target), unquote(parts.fragment))):
                found.append(f"{where}: {link}")
    return sorted(set(found))


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print("\n".join(lines) or "every link leads somewhere")
    sys.exit(bool(lines))
