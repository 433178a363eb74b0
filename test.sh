#!/bin/bash
# The tests, in three tiers:  ./test.sh --quick   no root, no servers, under two minutes
#                             ./test.sh           everything, under twenty minutes on two cores
#                             ./test.sh --soak    that, and hours of fuzzing and fault seeds
#                             ./test.sh --hosts   two real systemd hosts (molecule/hosts), nothing else; needs root
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh

tier=full
case ${1:-} in
  --quick) tier=quick && shift ;;
  --soak) tier=soak && shift && export TICKWORK_SOAK=1 ;;
  --hosts) tier=hosts && shift ;;
esac

debian_packages flock=util-linux timeout=coreutils openssl=openssl
python_environment "dev,$(vectors_extra)"
PATH=$PWD/.venv/bin:$PATH
export ANSIBLE_CONFIG=$PWD/ansible.cfg

step() {
  echo "==> $1"
  shift
  "$@"
}

if [ "$tier" = hosts ]; then
  TICKWORK_HOSTS=$(mktemp -d /var/tmp/tickwork-hosts.XXXXXX)
  export TICKWORK_HOSTS
  if reason=$(molecule/hosts/hosts.sh why-not); then
    step "molecule hosts: two real systemd hosts" molecule test -s hosts
  else
    echo "==> molecule hosts: skipped: $reason"
  fi
  rmdir --ignore-fail-on-non-empty "$TICKWORK_HOSTS" 2>/dev/null || true
  exit 0
fi

step "ruff" ruff check --quiet .
step "ruff format" ruff format --check --quiet .
step "mypy --strict" mypy --no-error-summary
step "shellcheck, shfmt" bash -c 'shellcheck -x demo.sh test.sh scripts/*.sh roles/tick/files/tick.sh && shfmt -i 2 -ci -d demo.sh test.sh scripts/*.sh roles/tick/files/tick.sh'
step "yamllint" yamllint --strict .
step "ansible-lint" ansible-lint --offline -q

# `-p no:cacheprovider`: a checkout may be read-only for whoever tests it.
case $tier in
  quick) selection="not slow and not soak" ;;
  full) selection="not soak" ;;
  soak) selection="" ;;
esac
step "pytest ($tier)" python -m pytest -p no:cacheprovider -q -n 2 --dist loadfile ${selection:+-m "$selection"} "$@"
[ "$tier" != quick ] || exit 0

step "molecule default: the demo inventory, unprivileged" molecule test -s default
