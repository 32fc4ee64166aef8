"""A flame graph as SVG: a box a frame, as wide as its samples, on its caller; each tells itself on hover."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.profile.stacks import Frame, Stack

WIDTH: Final = 1600
ROW: Final = 17
HEAD: Final = 30
MIN_WIDTH: Final = 0.8  # narrower boxes cannot be seen
CHARACTER: Final = 6.2  # pixels, about
MIN_CHARACTERS: Final = 3
STYLE: Final = (
    "text{font:11px ui-monospace,monospace;fill:#1c2126}rect{stroke:#fff;stroke-width:.5}"
    ".g{fill:#f2a65a}.l{fill:#c9d2d8}"
)


@dataclass
class Node:
    """A frame under its callers."""

    label: str
    own: bool
    count: int = 0
    below: dict[str, "Node"] = field(default_factory=dict)

    def child(self, frame: Frame) -> "Node":
        """The node of a frame that this one calls."""
        return self.below.setdefault(frame.label, Node(frame.label, bool(frame.inside)))

    @property
    def depth(self) -> int:
        """Rows that it takes."""
        return 1 + max((node.depth for node in self.below.values()), default=0)


def tree(stacks: Sequence[Stack]) -> Node:
    """All stacks, merged from their outermost frame in."""
    root = Node("all", own=False)
    for stack in stacks:
        node = root
        node.count += stack.count
        for frame in stack.frames:
            node = node.child(frame)
            node.count += stack.count
    return root


def svg(stacks: Sequence[Stack], title: str) -> str:
    """The graph."""
    root = tree(stacks)
    height = HEAD + root.depth * ROW + 6
    scale = WIDTH / max(1, root.count)
    boxes = "".join(_boxes(root, 0.0, height - ROW - 4, scale, max(1, root.count)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f'<text x="6" y="19">{html.escape(title)}</text>{boxes}</svg>\n'
    )


def _boxes(node: Node, x: float, y: float, scale: float, total: int) -> Iterator[str]:
    width = node.count * scale
    if width < MIN_WIDTH:
        return
    label = html.escape(node.label)
    fits = int(width / CHARACTER) - 1
    shown = html.escape(node.label[:fits]) if fits >= MIN_CHARACTERS else ""
    yield (
        f'<g><title>{label}: {node.count / total:.1%}</title><rect class="{"g" if node.own else "l"}" x="{x:.1f}" '
        f'y="{y:.0f}" width="{width:.1f}" height="{ROW - 1}"/><text x="{x + 3:.1f}" y="{y + 12:.0f}">{shown}</text></g>'
    )
    for below in sorted(node.below.values(), key=lambda each: each.label):
        yield from _boxes(below, x, y - ROW, scale, total)
        x += below.count * scale
