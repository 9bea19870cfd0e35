"""Formulas as MathML, which browsers draw by themselves: no script from elsewhere, no network."""

import re

from docutils import nodes
from docutils.utils.math import latex2mathml

REPLACED = [
    (re.compile(r"\\dots\b"), r"\\ldots"),
    (re.compile(r"\\(?:[bB]ig+[lr]?(?![a-zA-Z])|!)"), ""),  # fences grow by themselves
]


def mathml(formula: str, *, as_block: bool) -> str:
    """A formula in LaTeX as MathML; ``MathError`` where a command has no counterpart."""
    for pattern, other in REPLACED:
        formula = pattern.sub(other, formula)
    if as_block and r"\\" in formula and r"\begin{" not in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    found = latex2mathml.tex2mathml(formula, as_block=as_block)
    for drawn, better in (("ˉ", "‾"), (">'<", ">′<")):  # bars above letters, primes after them
        found = found.replace(drawn, better)
    return found


def _visit(translator, node, *, as_block):
    html = mathml(node.astext(), as_block=as_block)
    translator.body.append(f'<div class="formula">{html}</div>' if as_block else html)
    raise nodes.SkipNode


def visit_inline(translator, node):
    """A formula in a line."""
    _visit(translator, node, as_block=False)


def visit_block(translator, node):
    """A formula of its own."""
    _visit(translator, node, as_block=True)
