"""Write the README of every role from its argument_specs.yml and its defaults, and what all sources have in the former.

roles/readme.py           writes them
roles/readme.py --check   fails if one of them is not what it would write

The options that every source has stand once, in roles/source_options.yml.
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


class Indented(yaml.SafeDumper):
    """Lists stand further in than their key, as the linter wants it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """One level more, also for a list."""
        super().increase_indent(flow, False)


def load(path: Path) -> Any:  # noqa: ANN401 - any YAML value
    """The document in a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def specs(role: Path, defaults: dict[str, Any]) -> Path:
    """The role's argument_specs.yml, which every role has."""
    path = role / "meta" / "argument_specs.yml"
    if not path.is_file():
        sys.exit(f"roles/{role.name} has no meta/argument_specs.yml: describe {', '.join(defaults)} there")
    return path


def with_common_options(role: Path, document: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The role's argument_specs with the options that every source has, if it is one."""
    main = document["argument_specs"]["main"]
    own = main.get("options") or {}
    common = {}
    if f"{role.name}_ticks" in defaults and role.name != "tickwork":
        text = (ROLES / "source_options.yml").read_text(encoding="utf-8").replace("SOURCE", role.name)
        common = yaml.safe_load(text)
    options = {name: common.get(name) or own.get(name) for name in defaults}
    if missing := [name for name, option in options.items() if not option]:
        sys.exit(f"roles/{role.name}/meta/argument_specs.yml does not describe {', '.join(missing)}")
    return {"argument_specs": {"main": {**main, "options": options}}}


def readme(role: Path, spec: dict[str, Any], defaults: dict[str, Any]) -> str:
    """The README of one role."""
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
    for role in sorted(path.parent for path in ROLES.glob("*/defaults")):
        defaults = load(role / "defaults" / "main.yml")
        path = specs(role, defaults)
        before = load(path)
        wanted = with_common_options(role, before, defaults)
        written = {role / "README.md": readme(role, wanted["argument_specs"]["main"], defaults)}
        if before != wanted:
            written[path] = "---\n" + yaml.dump(wanted, Dumper=Indented, sort_keys=False, width=120, allow_unicode=True)
        for target, text in written.items():
            if not target.exists() or target.read_text(encoding="utf-8") != text:
                stale.append(f"roles/{target.relative_to(ROLES)}")
                if "--check" not in sys.argv:
                    target.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"out of date: {', '.join(stale)}; run roles/readme.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
