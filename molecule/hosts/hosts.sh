#!/bin/bash
# Real systemd hosts without docker: an overlay on a small Debian, a network namespace each, and systemd-nspawn.
#
#   hosts.sh up NAME...       build the Debian (once), boot the hosts, write FOLDER/inventory.yml
#   hosts.sh reboot NAME...   power off cleanly and boot again: the disk stays, /run is new
#   hosts.sh down             power off, unmount, remove FOLDER
#   hosts.sh prove            the whole scenario; nothing is left, however it ends
#   hosts.sh why-not          say what is missing here, and fail; say nothing where it can run
#   hosts.sh debian FOLDER    build a minimal Debian there, nothing else
#   hosts.sh why-no-debian    as why-not, for one that is booted without a bridge
#
# FOLDER is TICKWORK_HOSTS, on a disk that overlayfs takes (not itself an overlay). Everything lies there, also the tools
# that this machine lacks: nothing is installed here. TICKWORK_HOSTS_BASE keeps the Debian for the next time.
set -euo pipefail

FOLDER=${TICKWORK_HOSTS:?set TICKWORK_HOSTS to a scratch folder}
BASE=${TICKWORK_HOSTS_BASE:-$FOLDER/base}
BRIDGE=tickwork0
NET=10.231.8
PACKAGES=cron,dbus,iproute2,logrotate,openssh-server,procps,python3,python3-apt,python3-venv,sudo,systemd,systemd-sysv
CGROUPS=(/sys/fs/cgroup/unified /sys/fs/cgroup/systemd)
[ -d "${CGROUPS[1]}" ] || CGROUPS=(/sys/fs/cgroup)
PATH=$FOLDER/tools/usr/bin:$PATH:/usr/sbin:/sbin
# shellcheck source=molecule/hosts/apart.sh
. "$(dirname "$0")/apart.sh"

why_not() {
  why_no_debian || return 1
  ! ip link show "$BRIDGE" >/dev/null 2>&1 || { echo "the bridge $BRIDGE is there already: hosts are running" && return 1; }
}

why_no_debian() {
  [ "$EUID" -eq 0 ] || { echo "root is needed to boot hosts" && return 1; }
  grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || { echo "this kernel has no overlayfs" && return 1; }
  local command
  for command in apt-get dpkg ip perl ssh ssh-keygen unshare; do
    command -v "$command" >/dev/null || { echo "$command is missing" && return 1; }
  done
  unshare --net --mount --pid --fork true 2>/dev/null || { echo "this machine makes no namespaces" && return 1; }
}

# The packages are unpacked, not installed.
tools() {
  local wanted=()
  command -v systemd-nspawn >/dev/null || wanted+=(systemd-container)
  command -v mmdebstrap >/dev/null || wanted+=(mmdebstrap)
  [ "${#wanted[@]}" -gt 0 ] || return 0
  mkdir -p "$FOLDER/tools/debs"
  cd "$FOLDER/tools/debs"
  { apt-get download -q "${wanted[@]}" 2>/dev/null || { apt-get update -q && apt-get download -q "${wanted[@]}"; }; } >/dev/null
  local package
  for package in *.deb; do dpkg -x "$package" "$FOLDER/tools"; done
  cd - >/dev/null
}

# The machine's own package sources for Debian, in whichever form they are.
sources() {
  (
    shopt -s nullglob
    cat /etc/apt/sources.list.d/debian*.sources /etc/apt/sources.list.d/debian*.list 2>/dev/null || cat /etc/apt/sources.list
  )
}

debian() { # FOLDER [PACKAGES]
  tools
  mkdir -p "$1"
  sources | mmdebstrap --quiet --variant=minbase ${2:+--include="$2"} "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$1" -
}

boot() { # NAME ADDRESS
  local name=$1 home=$FOLDER/hosts/$1 group groups=()
  # A cgroup for each host: two that share one would end each other's processes.
  for group in "${CGROUPS[@]}"; do mkdir -p "$group/tickwork-$name" && groups+=("$group/tickwork-$name"); done
  (
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 setsid systemd-nspawn --quiet --directory="$home/root" \
      --machine="tickwork-$name" --register=no --keep-unit --network-namespace-path="/run/netns/tickwork-$name" \
      --resolv-conf=off --console=pipe --boot </dev/null >>"$home/console.log" 2>&1
  ) &
  echo $! >"$home/pid"
}

await() { # ADDRESS
  local _
  for _ in {1..120}; do
    ! ssh -i "$FOLDER/key" -o BatchMode=yes -o ConnectTimeout=1 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
      -o LogLevel=ERROR "root@$1" systemctl is-system-running 2>/dev/null | grep -Eq 'running|degraded' || return 0
    sleep 0.5
  done
  echo "$1 did not come up; see $FOLDER/hosts/*/console.log" >&2
  return 1
}

up() {
  mkdir -p "$FOLDER"
  tools
  [ -x "$BASE/sbin/init" ] || debian "$BASE" "$PACKAGES"
  [ -f "$FOLDER/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$FOLDER/key"
  ip link add "$BRIDGE" type bridge
  ip addr add "$NET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  local number=10 name home
  : >"$FOLDER/addresses"
  for name in "$@"; do
    number=$((number + 1)) home=$FOLDER/hosts/$name
    mkdir -p "$home/upper" "$home/work" "$home/root"
    mount -t overlay "tickwork-$name" -o "lowerdir=$BASE,upperdir=$home/upper,workdir=$home/work" "$home/root"
    install -d -m 700 "$home/root/root/.ssh"
    install -m 600 "$FOLDER/key.pub" "$home/root/root/.ssh/authorized_keys"
    echo "$name" >"$home/root/etc/hostname"
    : >"$home/root/etc/machine-id"
    ip netns add "tickwork-$name"
    ip link add "tw$number" type veth peer name host0 netns "tickwork-$name"
    ip link set "tw$number" master "$BRIDGE" up
    ip -n "tickwork-$name" addr add "$NET.$number/24" dev host0
    ip -n "tickwork-$name" link set host0 up
    ip -n "tickwork-$name" link set lo up
    echo "$name $NET.$number" >>"$FOLDER/addresses"
    boot "$name"
  done
  while read -r name number; do await "$number"; done <"$FOLDER/addresses"
}

power_off() { # NAME: TERM is a clean power-off for what nspawn runs
  local pid _
  pid=$(cat "$FOLDER/hosts/$1/pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || return 0
  for _ in {1..120}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.25
  done
  kill -KILL "$pid" 2>/dev/null || true
}

reboot() {
  local name
  for name in "$@"; do
    power_off "$name"
    boot "$name"
    await "$(awk -v name="$name" '$1 == name {print $2}' "$FOLDER/addresses")"
  done
}

down() {
  local home name group address
  for home in "$FOLDER"/hosts/*/; do
    [ -d "$home" ] || continue
    name=$(basename "$home")
    power_off "$name"
    ip netns del "tickwork-$name" 2>/dev/null || true
    umount "$home/root" 2>/dev/null || true
    for group in "${CGROUPS[@]}"; do
      [ ! -d "$group/tickwork-$name" ] || find "$group/tickwork-$name" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
  done
  # A namespace lives on while a process is in it, and its cable with it.
  while read -r name address; do ip link del "tw${address##*.}" 2>/dev/null || true; done 2>/dev/null <"$FOLDER/addresses" || true
  ip link del "$BRIDGE" 2>/dev/null || true
  ! grep -q " $FOLDER/" /proc/mounts || { echo "something below $FOLDER is still mounted; it is left there" >&2 && return 1; }
  rm -rf "$FOLDER"
}

prove() {
  why_not >&2
  cd "$(dirname "$0")/../.."
  PATH=$PWD/.venv/bin:$PATH
  apart molecule test -s hosts
}

clean() {
  # Those numbers are of processes in the namespaces.
  rm -f "$FOLDER"/hosts/*/pid
  down
}

command=$1
shift
case $command in
  up | reboot | down | prove | debian) "$command" "$@" ;;
  why-not) why_not ;;
  why-no-debian) why_no_debian ;;
  *) echo "hosts.sh up|reboot|down|prove|why-not|debian|why-no-debian" >&2 && exit 2 ;;
esac
