"""Puts the counting into a chat template before it is compiled: a step into every loop, a measure around what makes a
value. What is called there stands in `template_limits`.
"""

from __future__ import annotations

import jinja2
import jinja2.nodes as nodes
from jinja2.visitor import NodeTransformer

# Names of filters that no template spells by chance; spelled on purpose they do no harm.
STEP, MADE, LOOK, TEXT = "(step)", "(made)", "(look)", "(text)"


class Counted(NodeTransformer):
    """Puts the counting into a template: a step into every loop, a measure around all that makes a value."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment

    def _through(self, name: str, node: nodes.Expr) -> nodes.Expr:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=self._environment)

    def _step(self, node: nodes.Node) -> nodes.Expr:
        const = nodes.Const(True, lineno=node.lineno, environment=self._environment)
        return self._through(STEP, const)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        step = nodes.ExprStmt(self._step(node), lineno=node.lineno, environment=self._environment)
        node.body.insert(0, step)
        if node.test is not None:
            node.test = nodes.And(self._step(node), node.test, lineno=node.lineno, environment=self._environment)
        return node

    def _container(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load" or all(isinstance(n, nodes.Const) for n in node.iter_child_nodes()):
            return node
        return self._through(MADE, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._container(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._container(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(MADE, node) if node.items else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(MADE, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [n if isinstance(n, nodes.Const) else self._through(TEXT, n) for n in node.nodes]
        return self._through(MADE, node)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.op in ("in", "notin") and not isinstance(node.expr, nodes.Const | nodes.List | nodes.Tuple):
            node.expr = self._through(LOOK, node.expr)
        return node
