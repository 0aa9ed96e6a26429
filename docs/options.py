"""Write docs/options.md, the options of every backend, from the code: `make docs`."""

from __future__ import annotations

from pathlib import Path

from safegen import plugins
from safegen.cli.backends import described

PAGE = Path(__file__).with_suffix(".md")

HEAD = """# Options

What can be set on each backend: `Generator(NAME, options={...})`, or `--set option=value` with the
value as JSON. `safegen backends NAME` prints the same. This page is written by `make docs`.
"""


def page() -> str:
    """The page as the installed backends of safegen make it."""
    parts = [HEAD]
    for name in plugins.names(plugins.BACKENDS):
        options = described(plugins.load(plugins.BACKENDS, name).Options)
        if not options or not plugins.load(plugins.BACKENDS, name).__module__.startswith(
            "safegen."
        ):
            continue
        parts.append(f"\n## {name}\n\n| option | type | default | does |\n|---|---|---|---|\n")
        for option, (kind, default, text) in options.items():
            cells = (f"`{option}`", kind, f"`{default}`", " ".join(text.split()))
            parts.append(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
