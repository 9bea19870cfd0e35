"""The site says what there is, and its links are checked by something that finds broken ones."""

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import skdiffusion

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def site(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield importlib.import_module
    for name in ("_reference", "_links"):
        sys.modules.pop(name, None)


def test_the_reference_has_every_public_name(site):
    reference = site("_reference")
    listed = {name for package in reference.SECTIONS for name in reference.names(package)}
    for name in skdiffusion.__all__:
        item = getattr(skdiffusion, name)
        public = item.__all__ if inspect.ismodule(item) else [name]
        assert set(public) - listed <= {"__version__"}


def test_the_reference_has_every_package(site):
    """Packages, and the modules beside them."""
    reference = site("_reference")
    listed = {name for package in reference.SECTIONS for name in reference.names(package)}
    for found in pkgutil.iter_modules(skdiffusion.__path__, "skdiffusion."):
        if not found.name.rpartition(".")[2].startswith("_"):
            public = set(getattr(importlib.import_module(found.name), "__all__", []))
            assert public <= listed, found.name


def test_what_is_listed_has_a_docstring(site):
    reference = site("_reference")
    for package in reference.SECTIONS:
        module = importlib.import_module(package)
        objects, _ = reference.documented(package)
        assert all(inspect.getdoc(getattr(module, name)) for name in objects), package


def test_broken_links_are_found(site, tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">1</a><a href="b.html#nowhere">2</a><img src="c.png">'
        '<code class="xref py"><span>skdiffusion.Lost</span></code>'
        '<a href="https://example.org">out</a><a href="#here">3</a></p>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1><a href="a.html">back</a>')
    assert site("_links").broken(tmp_path) == [
        "a.html: b.html#nowhere",
        "a.html: c.png",
        "a.html: no such name skdiffusion.Lost",
    ]
