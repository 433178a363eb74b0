#!/bin/bash
# The commands of README.md and docs/operating.md, as they stand there, on a fresh minimal Debian: from clone to deploy,
# with ssh to a host that has no more than it must have. What is committed is proven.
#
#   control-node.sh prove      build both machines, run the commands, remove everything
#   control-node.sh why-not    say what is missing here, and fail; say nothing where it can run
#
# Works below TICKWORK_HOSTS, and removes it. Both machines share this one's network, for the packages; the host's sshd
# and the fake upstream listen on loopback.
set -euo pipefail

FOLDER=${TICKWORK_HOSTS:?set TICKWORK_HOSTS to a scratch folder}/control-node
HERE=$(cd "$(dirname "$0")" && pwd)
CHECKOUT=$(cd "$HERE/../.." && pwd)
PYTHON=$CHECKOUT/.venv/bin/python
CGROUPS=(/sys/fs/cgroup/unified /sys/fs/cgroup/systemd)
[ -d "${CGROUPS[1]}" ] || CGROUPS=(/sys/fs/cgroup)
PATH=$FOLDER/tools/usr/bin:$PATH:/usr/sbin:/sbin
# shellcheck source=molecule/hosts/apart.sh
. "$HERE/apart.sh"

why_not() {
  "$HERE/hosts.sh" why-no-debian || return 1
  git -C "$CHECKOUT" -c safe.directory="$CHECKOUT" rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { echo "this is no git checkout" && return 1; }
  [ -x "$PYTHON" ] || { echo ".venv is missing: ./test.sh makes it" && return 1; }
}

prove() {
  why_not >&2
  mkdir -p "$FOLDER"
  apart "$HERE/control-node.sh" inside
}

clean() {
  local group
  for group in "${CGROUPS[@]}"; do
    for _ in {1..40}; do
      [ -d "$group/tickwork-control-node" ] || break
      find "$group/tickwork-control-node" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.25
    done
  done
  rm -rf --one-file-system "$FOLDER"
  rmdir --ignore-fail-on-non-empty "$TICKWORK_HOSTS"
}

say() { printf '    %s (%s s)\n' "$1" "$SECONDS"; }

inside() {
  say "building a minimal Debian"
  TICKWORK_HOSTS=$FOLDER "$HERE/hosts.sh" debian "$FOLDER/minimal"
  machine control
  machine host
  prepare_host
  boot_host
  prepare_control
  start_upstream

  say "README.md, Try it: clone, and the demo"
  stranger "$(commands README.md "Try it" 1 | sed '/^\.\/test\.sh/d')"
  say "README.md, Try it: the quick tests"
  stranger "cd tickwork; ./test.sh --quick"
  say "README.md, Try it: without any deployment"
  stranger "cd tickwork; export TICKWORK_CONFIG=/root/tickwork.toml; $(commands README.md "Try it" 2)"
  say "README.md, Deploying"
  stranger "cd tickwork; edit() { /root/edit; }; $(commands README.md Deploying 1 | sed 's/ *# then edit it$/ \&\& edit/')"
  changed '[1-9][0-9]*'
  say "jobs on the host"
  on_host "
    systemctl is-active cron
    tickwork check
    for job in doab-harvest doab-backfill; do
      # Busy is where its own tick has just come.
      tickwork run \$job || { [ \$? -eq 75 ] && sleep 30 && tickwork run \$job; }
    done
    # As their timers would: in the sandbox, where torch has to work.
    systemctl start tickwork-doab-embed.service
    systemctl start tickwork-doab-publish.service
    tickwork status
    tickwork search doab soil --mode both --json | grep title"
  say "the search service on the host"
  on_host "
    asked() { python3 -c \"import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())\" http://127.0.0.1:$search_port/\$1; }
    for _ in {1..60}; do asked -/health 2>/dev/null | grep '\"meaning\": \"ready\"' && break || sleep 1; done
    asked '?q=soil&mode=meaning' | grep 'class=.card'
    systemctl restart tickwork-search.service
    asked '?q=soil' | grep 'class=.card'"
  say "docs/operating.md, Deploying"
  stranger "cd tickwork; . .venv/bin/activate; export LC_ALL=C.UTF-8; $(commands docs/operating.md Deploying 1)"
  changed 0 0 0 1 '[1-9][0-9]*'
  on_host "! command -v tickwork && test -s /var/lib/tickwork/db/doab.db"
  say "proven"
}

# The Nth block of commands below a heading.
commands() { # FILE HEADING N
  awk -v heading="## $2" -v wanted="$3" '
    /^## / { here = $0 == heading }
    /^```/ { code = here && /^```sh$/; number += code; next }
    code && number == wanted' "$CHECKOUT/$1" | grep . || { echo "$1 has no block $3 of commands below $2" >&2 && return 1; }
}

# As somebody who logs in from elsewhere, with the language of there.
stranger() { # COMMANDS
  logged chroot "$FOLDER/control/root" env -i HOME=/root TERM=dumb LANG=de_DE.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -euc "cd; $1"
}

on_host() { # COMMANDS, as root
  # Quoted twice: for the shell here, and for the one that ssh starts.
  stranger "ssh books1 sudo bash -euc $(printf '%q' "$(printf '%q' "$1")")"
}

logged() {
  "$@" >"$FOLDER/log" 2>&1 </dev/null || { tail -n 60 "$FOLDER/log" >&2 && return 1; }
}

# How many things each play of the last commands changed.
changed() { # PATTERN...
  local found wanted
  found=$(sed -n 's/^books1.* changed=\([0-9]*\) .*/\1/p' "$FOLDER/log" | tr '\n' ' ')
  wanted=$(printf '%s ' "$@")
  [[ $found =~ ^$wanted ]] || { echo "the plays changed $found things, not $wanted" >&2 && return 1; }
}

# The minimal Debian anew, with this machine's way to packages.
machine() { # NAME
  local home=$FOLDER/$1 root=$FOLDER/$1/root bundle folder
  mkdir -p "$home/upper" "$home/work" "$root"
  mount -t overlay "tickwork-$1" -o "lowerdir=$FOLDER/minimal,upperdir=$home/upper,workdir=$home/work" "$root"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  {
    apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries)' || true
    [ -z "${http_proxy:-}" ] || echo "Acquire::http::Proxy \"$http_proxy\";"
    echo 'APT::Get::Assume-Yes "true";'
  } >"$root/etc/apt/apt.conf.d/99machine"
  {
    echo "[global]"
    bundle=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
    mkdir -p "$root/etc/ssl"
    [ ! -f "$bundle" ] || { cp -L "$bundle" "$root/etc/ssl/machine.pem" && echo "cert = /etc/ssl/machine.pem"; }
    [ -z "${https_proxy:-}" ] || echo "proxy = $https_proxy"
    "$PYTHON" -m pip config list | sed -nE "s/^[^.]*\.((extra-)?index-url|find-links|trusted-host)='(.*)'$/\1 = \3/p" |
      sed 's/\\n/ /g' | awk '!seen[$1]++'
  } >"$root/etc/pip.conf"
  # Packages that lie in folders of this machine, in the same places. Those of an index are beside its pages.
  sed -nE 's/^(extra-index-url|index-url|find-links) = //p' "$root/etc/pip.conf" | tr ' ' '\n' | while read -r folder; do
    [[ $folder == file://* ]] && folder=$(dirname "${folder#file://}")
    [[ $folder == /?* ]] || continue
    mkdir -p "$root$folder"
    mount -o bind,ro "$folder" "$root$folder"
  done
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  logged chroot "$root" apt-get update -q
}

free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# What inventory/production.example asks of a host, and no more.
prepare_host() {
  local root=$FOLDER/host/root
  port=$(free_port)
  # Nothing is started before it has a boot of its own.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  logged chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -q --no-install-recommends systemd-sysv openssh-server python3 sudo
  rm "$root/usr/sbin/policy-rc.d"
  umount -l "$root/dev" "$root/proc"
  printf 'Port %s\nListenAddress 127.0.0.1\n' "$port" >"$root/etc/ssh/sshd_config.d/port.conf"
  echo books1 >"$root/etc/hostname"
  echo "127.0.0.1 localhost books1" >"$root/etc/hosts"
  : >"$root/etc/machine-id"
  ssh-keygen -q -t ed25519 -N '' -f "$FOLDER/key"
  chroot "$root" useradd --create-home --shell /bin/bash admin
  echo "admin ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/admin"
  mkdir "$root/home/admin/.ssh"
  cp "$FOLDER/key.pub" "$root/home/admin/.ssh/authorized_keys"
  chroot "$root" chown -R admin: /home/admin/.ssh
}

boot_host() {
  local group groups=()
  for group in "${CGROUPS[@]}"; do mkdir -p "$group/tickwork-control-node" && groups+=("$group/tickwork-control-node"); done
  (
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 setsid systemd-nspawn --quiet --directory="$FOLDER/host/root" \
      --machine=tickwork-control-node --register=no --keep-unit --resolv-conf=off --console=pipe --boot </dev/null >"$FOLDER/console.log" 2>&1
  ) &
}

prepare_control() {
  local root=$FOLDER/control/root
  printf '[safe]\n\tdirectory = *\n' >"$FOLDER/gitconfig"
  GIT_CONFIG_GLOBAL=$FOLDER/gitconfig git clone --quiet --bare "$CHECKOUT" "$root/srv/tickwork.git"
  printf '[url "/srv/tickwork.git"]\n\tinsteadOf = https://tickwork.invalid/tickwork\n' >"$root/root/.gitconfig"
  mkdir -m 700 "$root/root/.ssh"
  cp "$FOLDER/key" "$root/root/.ssh/id_ed25519"
  printf 'Host books1*\n\tHostName 127.0.0.1\n\tPort %s\n\tUser admin\n\tStrictHostKeyChecking accept-new\n' "$port" >"$root/root/.ssh/config"
}

# In place of the real upstream, for the jobs here and on the host; and the edits of whoever deploys.
start_upstream() {
  local root=$FOLDER/control/root
  (cd "$CHECKOUT" && exec "$PYTHON" -m tests.upstreams.oai --port 0 --books 200 --ready-file "$FOLDER/upstream" >/dev/null 2>&1) &
  for _ in {1..100}; do [ -s "$FOLDER/upstream" ] || sleep 0.1; done
  cat >"$root/root/tickwork.toml" <<END
allow_private = ["127.0.0.0/8"]
[doab]
base_url = "$(cat "$FOLDER/upstream")"
END
  search_port=$(free_port)
  echo "$search_port" >"$root/root/search-port"
  cat >"$root/root/edit" <<'END'
#!/bin/bash
set -euo pipefail
cd inventory/production
sed -i '/books2/,$d' hosts.yml
cat >>group_vars/tickwork/main.yml <<YAML
doab_settings: {base_url: "$(sed -n 's/^base_url = "\(.*\)"/\1/p' /root/tickwork.toml)", interval_seconds: 0.01}
tickwork_allow_private: [127.0.0.0/8]
tickwork_overrides: {doab-embed: {scheduler: systemd}, doab-publish: {scheduler: systemd}}
tickwork_services: [search]
search_listen: "127.0.0.1:$(cat /root/search-port)"
YAML
for _ in {1..60}; do
  ! ssh books1 true || exit 0
  sleep 1
done
echo "the host did not come up" >&2
exit 1
END
  chmod 755 "$root/root/edit"
}

case ${1:-} in
  prove | inside) "$1" ;;
  why-not) why_not ;;
  *) echo "control-node.sh prove|why-not" >&2 && exit 2 ;;
esac
