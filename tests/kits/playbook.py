"""Running the real playbook into a folder: no root, nothing scheduled on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kits.wrappers import ROOT

TOOLS = Path(sys.executable).parent


def play(
    root: Path, *options: str, checkout: Path = ROOT, inventory: Path = Path("inventory/demo"), **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Deploy an inventory, the demo's if no other is given, into `root`, from this checkout or a copy of it."""
    path = os.pathsep.join([str(checkout / "jobs"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "TICKWORK_DEMO_PREFIX": str(root), "ANSIBLE_FORCE_COLOR": "0", "PYTHONPATH": path}
    environment["ANSIBLE_CONFIG"] = str(checkout / "ansible.cfg")
    command = [TOOLS / "ansible-playbook", "playbooks/site.yml", "-i", inventory, "-e", json.dumps(variables)]
    return subprocess.run(
        [*command, *options], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
