"""How the documentation is built: `make docs`."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _mathml import visit_block, visit_inline
from _reference import write_reference
from _results import copy_results

import skdiffusion

project = "skdiffusion"
author = "The skdiffusion developers"
copyright = author
release = version = skdiffusion.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "README.md"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# pages that are made from what they describe: never edited, never stale
write_reference(HERE / "api")
copy_results(ROOT / "benchmarks" / "results", HERE / "results")

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_validation_checks = set()
templates_path = ["_templates"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "min_reported_time": 60,
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "doc_module": ("skdiffusion",),
    "reference_url": {"skdiffusion": None},
    "backreferences_dir": "gallery/backreferences",
    "within_subsection_order": "FileNameSortKey",
}

# names of other packages are written, not linked: their sites are not asked during a build
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|scipy|numpy|torch)\..*")]

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "skdiffusion"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def links_to_the_repository(app, docname, source):
    """In the repository guides link to tables and examples where they lie; here to their pages."""
    text = source[0].replace("](../benchmarks/results/", "](results/")
    text = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](gallery/\1)", text)
    source[0] = text.replace("](../CHANGELOG.md", "](changelog.md")


def without_last_empty_line(app, docname, source):
    """Doctests in guides need an empty line before the fence; readers do not."""
    source[0] = re.sub(r"^(```python\n.*?)\n\n+```$", r"\1\n```", source[0], flags=re.M | re.S)


def of_scikit_learn(app, what, name, member, skip, options):
    """Methods that scikit-learn adds to every class are not explained again on each."""
    return skip or name.endswith("_request") or name in {"get_metadata_routing", "set_output"}


def setup(app):
    """Hooks."""
    app.connect("autodoc-skip-member", of_scikit_learn)
    app.connect("source-read", links_to_the_repository)
    app.connect("source-read", without_last_empty_line)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
