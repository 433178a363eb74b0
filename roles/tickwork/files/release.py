"""What is to be installed, as one file with a name of its own. Runs on the control node.

    release.py name SOURCE CONSTRAINTS WORD...  prints `0.1.0-4f2a91c0d3`
    release.py pack SOURCE CONSTRAINTS FOLDER   writes the file (and constraints.txt) there, prints its name

SOURCE is a source tree or a wheel, CONSTRAINTS a file or an empty word, a WORD whatever else makes an installation what
it is: an extra, the build of torch, the Python of the host. The name is the version and a hash of all that goes in, so
that the same input is installed once, and any change beside what was there.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import tomllib
from pathlib import Path

FILES = ("pyproject.toml", "README.md", "LICENSE")
TREES = ("jobs",)


def contents(source: Path) -> dict[str, bytes]:
    """The files of the source by their path, in order; of a wheel, the wheel."""
    if source.is_file():
        return {source.name: source.read_bytes()}
    paths = [source / name for name in FILES]
    for tree in TREES:
        paths += [path for path in sorted((source / tree).rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}


def version(source: Path) -> str:
    """The version as the wheel's name or the project file gives it."""
    if source.is_file():
        return source.name.split("-")[1]
    return str(tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def name(source: Path, constraints: str, words: list[str]) -> str:
    """The name of the version's folder."""
    digest = hashlib.sha256()
    parts = {**contents(source), "constraints": Path(constraints).read_bytes() if constraints else b""}
    for path, data in [*parts.items(), ("words", " ".join(sorted(words)).encode())]:
        digest.update(f"{path} {len(data)}\n".encode())
        digest.update(data)
    return f"{version(source)}-{digest.hexdigest()[:10]}"


def pack(source: Path, constraints: str, folder: Path) -> str:
    """Write what pip installs, and the constraints, into `folder`; gives the file's name."""
    if constraints:
        (folder / "constraints.txt").write_bytes(Path(constraints).read_bytes())
    if source.is_file():
        (folder / source.name).write_bytes(source.read_bytes())
        return source.name
    stem = f"tickwork-{version(source)}"
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as archive:
        for path, data in contents(source).items():
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return f"{stem}.tar.gz"


if __name__ == "__main__":
    what, tree, pins, *rest = sys.argv[1:]
    if what == "name":
        print(name(Path(tree), pins, rest))
    else:
        print(pack(Path(tree), pins, Path(rest[-1])))
