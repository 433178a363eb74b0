"""Whatever is called .halted halts; whatever a reason holds, the marker is one line of the reserve's size."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tickwork.contract.markers import RESERVE_BYTES, Markers

KINDS = ("file", "directory", "link", "dangling link", "pipe", "link to a directory")


@given(kind=st.sampled_from(KINDS), content=st.binary(max_size=6000), mode=st.sampled_from([0o644, 0o000, 0o777]))
def test_anything_called_halted_halts_and_can_be_shown_and_rearmed(kind: str, content: bytes, mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        markers = Markers(Path(folder) / "job")
        markers.ready()
        marker = markers.folder / ".halted"
        other = Path(folder) / "other"
        if kind == "file":
            marker.write_bytes(content)
            marker.chmod(mode)
        elif kind == "directory":
            marker.mkdir()
        elif kind == "link":
            other.write_bytes(content)
            marker.symlink_to(other)
        elif kind == "dangling link":
            marker.symlink_to(other)
        elif kind == "pipe":
            os.mkfifo(marker)
        else:
            other.mkdir()
            marker.symlink_to(other)
        assert markers.halted
        reason = markers.halted_reason()
        assert "\n" not in reason
        markers.halt("another reason")
        assert markers.halted_reason() == reason, "the first reason stays"
        assert markers.rearm(done=False) == [".halted"]
        assert not markers.halted
        assert kind not in ("link", "link to a directory") or other.exists(), "what the link led to is not ours"


@given(reason=st.text(st.characters(codec=None), max_size=6000))
def test_any_reason_makes_one_line_of_the_reserves_size(reason: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        markers = Markers(Path(folder) / "job")
        markers.ready()
        markers.halt(reason)
        content = (markers.folder / ".halted").read_bytes()
        assert len(content) == RESERVE_BYTES
        assert content.count(b"\n") == 1
        assert markers.halted
        shown = markers.halted_reason()
        assert '"' not in shown or len(reason) > 1000
        if len(reason) < 1000:
            assert shown.split() == reason.encode(errors="replace").decode().replace('"', " ").split()
