#!/bin/bash
# The tests, in three tiers:  ./test.sh --quick   no root, no servers, under two minutes
#                             ./test.sh --lint    only the linters of that
#                             ./test.sh           everything, under twenty minutes on two cores
#                             ./test.sh --soak    that, and hours of fuzzing and fault seeds
#                             ./test.sh --hosts   only what boots machines (molecule/hosts); needs root
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh

tier=full
case ${1:-} in
  --quick) tier=quick && shift ;;
  --lint) tier=lint && shift ;;
  --soak) tier=soak && shift && export TICKWORK_SOAK=1 ;;
  --hosts) tier=hosts && shift ;;
esac

debian_packages flock=util-linux timeout=coreutils openssl=openssl
python_environment "dev,$(vectors_extra)"
# A browser for the pages; whoever cannot install one has those tests skipped.
[[ $tier = @(quick|lint) ]] || [ "$(id -u)" -ne 0 ] || debian_packages chromium=chromium || true
PATH=$PWD/.venv/bin:$PATH
export ANSIBLE_CONFIG=$PWD/ansible.cfg
# Hundreds of processes start here, and each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE
# Where the tests leave pictures of the pages.
export TICKWORK_ARTEFACTS=${TICKWORK_ARTEFACTS:-$PWD/test-artifacts}

step() {
  echo "==> $1"
  shift
  "$@"
}

# What boots machines: molecule/hosts/NAME.sh, in a folder that it removes.
HOSTS="molecule hosts: two real systemd hosts"
CONTROL_NODE="control node: the commands of README.md on a minimal Debian"

machines_run_here() { # NAME TITLE
  local reason
  reason=$(TICKWORK_HOSTS=/var/tmp "molecule/hosts/$1.sh" why-not) || { echo "==> $2: skipped: $reason" && return 1; }
}

machines() { # NAME: in place of this shell, so that what ends it ends them
  TICKWORK_HOSTS=$(mktemp -d /var/tmp/tickwork-hosts.XXXXXX) exec "molecule/hosts/$1.sh" prove
}

finish_hosts() {
  wait "$hosts" || { tail -n 80 "$log" && return 1; }
  tail -n 2 "$log"
}

# Whatever still runs ends with this script, and has cleaned up before.
end() {
  local children=() child
  read -ra children 2>/dev/null <"/proc/$$/task/$$/children" || true
  for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
  for child in "${children[@]}"; do while kill -0 "$child" 2>/dev/null; do sleep 0.2; done; done
  rm -f "$log"
}
log=$(mktemp)
trap end EXIT

if [ "$tier" = hosts ]; then
  ! machines_run_here hosts "$HOSTS" || (step "$HOSTS" machines hosts)
  ! machines_run_here control-node "$CONTROL_NODE" || (step "$CONTROL_NODE" machines control-node)
  exit 0
fi

# The hosts mostly wait for minutes to pass, so they are looked at beside everything else.
hosts=""
if [[ $tier != @(quick|lint) ]] && machines_run_here hosts "$HOSTS"; then
  echo "==> $HOSTS: begun"
  machines hosts >"$log" 2>&1 &
  hosts=$!
fi

shell_scripts() {
  local files=(*.sh scripts/*.sh molecule/hosts/*.sh roles/*/files/*.sh)
  shellcheck -x "${files[@]}"
  shfmt -i 2 -ci -d "${files[@]}"
}

imports_point_down() {
  local said
  said=$(lint-imports --no-cache 2>&1) || { echo "$said" && return 1; }
}

step "ruff" ruff check --quiet .
step "ruff format" ruff format --check --quiet .
step "mypy --strict" mypy --no-error-summary
step "import-linter" imports_point_down
step "shellcheck, shfmt" shell_scripts
step "yamllint" yamllint --strict .
step "ansible-lint" ansible-lint --offline -q
[ "$tier" != lint ] || exit 0

# `-p no:cacheprovider`: a checkout may be read-only for whoever tests it. Not the files with most tests first: those with
# few take the longest, and come first by their names.
case $tier in
  quick) selection="not slow and not soak" ;;
  full) selection="not soak" ;;
  soak) selection="" ;;
esac
step "pytest ($tier)" python -m pytest -p no:cacheprovider -q -n 2 --dist loadfile --no-loadscope-reorder ${selection:+-m "$selection"} \
  ${TICKWORK_SOAK:+--timeout 7200} "$@" # per test, where it says nothing else
[ "$tier" != quick ] || exit 0

step "molecule default: the demo inventory, unprivileged" molecule test -s default
[ -z "$hosts" ] || step "$HOSTS" finish_hosts
[ "$tier" != soak ] || ! machines_run_here control-node "$CONTROL_NODE" || (step "$CONTROL_NODE" machines control-node)
