"""Root runs a tick as the service user, who owns all that it leaves."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.jobs.proofs import shell
from tests.kits.wrappers import Wrapper


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
@pytest.mark.parametrize("user", ["nobody", "daemon"])
def test_root_runs_a_tick_as_the_service_user(user: str) -> None:
    account = pwd.getpwnam(user)
    home = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        wrapper = Wrapper(home, shell(f"id -un >{home}/log/who; id -G >>{home}/log/who; exit 3"))
        # `.library` lies where that user may not be able to look.
        for name in ("tick.sh", "tick-pass.sh"):
            shutil.copy(wrapper.library.with_name(name), home)
        text = wrapper.render().replace("TICK_USER=''", f"TICK_USER={user}")
        wrapper.path.write_text(text.replace(str(wrapper.library), str(home / "tick.sh")))
        home.chmod(0o755)
        for folder in (wrapper.dir, wrapper.log.parent, home / "metrics"):
            os.chown(folder, account.pw_uid, account.pw_gid)
        answer = wrapper.tick()
        assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
        who, groups = (home / "log" / "who").read_text().splitlines()
        assert who == user
        assert "0" not in groups.split()
        assert {path.stat().st_uid for path in wrapper.dir.iterdir()} == {account.pw_uid}
    finally:
        shutil.rmtree(home)
