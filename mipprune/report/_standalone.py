"""Plots of a report's page as files of their own, for documents that show one."""

import re

from mipprune.report._template import PAGE

__all__ = ["standalone_svg"]

# The page's light form is the first block that sets its variables.
_LIGHT = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", PAGE.template.split("}", 1)[0]))


def standalone_svg(svg: str) -> str:
    """An inline plot with the page's light colours, paper and font written into it."""
    for name, colour in _LIGHT.items():
        svg = svg.replace(f"var({name})", colour)
    svg = svg.replace("font-family: inherit", "font-family: sans-serif")
    if "xmlns=" not in svg[: svg.index(">")]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    paper = f'<rect width="100%" height="100%" fill="{_LIGHT["--paper"]}"/>'
    return re.sub(r"(<svg[^>]*>)", rf"\1{paper}", svg, count=1) + "\n"
