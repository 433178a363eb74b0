# shellcheck shell=bash
# Sourced by demo.sh and test.sh: the Debian packages and the virtual environment they need. Quick when all is there.

# The one UTF-8 locale that every Debian has; Ansible refuses to start under one that is not installed.
export LC_ALL=C.UTF-8

# debian_packages COMMAND=PACKAGE...: install the packages whose command is missing, or say which they are.
debian_packages() {
  local pair missing=()
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "==> installing Debian packages: ${missing[*]}"
    { apt-get install -y -q "${missing[@]}" || { apt-get update -q && apt-get install -y -q "${missing[@]}"; }; } >.apt.log 2>&1 && return
    tail -n 5 .apt.log >&2
  fi
  echo "Missing: ${missing[*]}. Install them first: sudo apt-get install ${missing[*]}" >&2
  return 1
}

# python_environment EXTRA: make or renew .venv with `tickwork[EXTRA]` at the pinned versions.
python_environment() {
  local extra=$1 python stamp wanted
  python=$(_newest_python) || return 1
  wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
  stamp=.venv/.tickwork-$extra-$wanted
  [ -e "$stamp" ] && return 0
  if [ ! -x .venv/bin/pip ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || debian_packages ensurepip-for-venv=python3-venv || return 1
    "$python" -m venv .venv || return 1
  fi
  echo "==> installing tickwork[$extra] into .venv (the first time this takes minutes)"
  if ! { _torch && _pip -c constraints.txt -e ".[$extra]"; } >.venv/pip.log 2>&1; then
    tail -n 20 .venv/pip.log >&2
    return 1
  fi
  rm -f ".venv/.tickwork-$extra-"*
  touch "$stamp"
}

_pip() { .venv/bin/python -m pip install -q --disable-pip-version-check "$@"; }

# vectors_extra: the extra that embeds here, gpu where there is NVIDIA's driver.
vectors_extra() { [ -e /proc/driver/nvidia/version ] && echo gpu || echo cpu; }

# Without a GPU torch's build for CPUs, from the usual index or else from TICKWORK_TORCH_INDEX.
_torch() {
  [ "$(vectors_extra)" = cpu ] || return 0
  local torch
  torch=$(grep '^torch==' constraints.txt)+cpu
  .venv/bin/python -m pip show -q "${torch%%=*}" || _pip --no-deps "$torch" ||
    _pip --no-deps --index-url "${TICKWORK_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" "$torch"
}

_newest_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  if debian_packages python3=python3-venv >&2 && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    command -v python3
    return
  fi
  echo "Python 3.11 or newer is needed" >&2
  return 1
}
