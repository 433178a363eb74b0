"""Write the README of every role from its argument_specs.yml and its defaults.

roles/readme.py           writes them
roles/readme.py --check   fails if one of them is not what it would write
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent


def markdown(text: str) -> str:
    """Ansible's markup as Markdown: C(code), and pipes that would end a table's cell."""
    return re.sub(r"C\(([^)]*)\)", r"`\1`", text).replace("|", "\\|")


def shown(value: Any) -> str:  # noqa: ANN401 - any YAML value
    """A default as it is written: short ones in full, long ones by what they are."""
    text = (
        value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]
    )
    # A default that only looks into `tick_job` first is shown as what it is without that.
    text = re.sub(r"^\{\{ _tick_job\.\w+ \| default\('?(.*?)'?\) \}\}$", r"\1", " ".join(text.split()))
    if re.fullmatch(r"\{\{ _tick_job\.\w+ \}\}", text):
        return "required"
    text = text.replace("|", "\\|")
    return f"`{text}`" if text and len(text) <= 90 else "empty" if not text else "see defaults/main.yml"


def readme(role: Path) -> str:
    """The README of one role."""
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text(encoding="utf-8"))
    lines = [f"# {role.name}: {spec['short_description'][0].lower()}{spec['short_description'][1:]}", ""]
    lines += [markdown(" ".join(sentence.split())) + "\n" for sentence in spec["description"]]
    lines += ["| variable | what it is | default |", "|---|---|---|"]
    for name, option in spec["options"].items():
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        lines.append(f"| `{name}` | {markdown(option['description'])}{choices} | {shown(defaults[name])} |")
    lines += [
        "",
        "Written by roles/readme.py from meta/argument_specs.yml and defaults/main.yml, whose comments say more.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Write or check; gives the exit code."""
    stale = []
    for role in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        path, text = role / "README.md", readme(role)
        if "--check" in sys.argv:
            stale += (
                [] if path.exists() and path.read_text(encoding="utf-8") == text else [f"roles/{role.name}/README.md"]
            )
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}; run roles/readme.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
