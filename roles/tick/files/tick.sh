# shellcheck shell=bash
# tick.sh: what every tickwork wrapper does around one pass. Sourced by a wrapper, which has set TICK_*; never run.
# What comes after the locks are taken is in tick-pass.sh: most ticks are skipped, and reading it takes longest.
#
# In the job's state folder:
#   .halted   a human must look; anything of that name counts, also a directory or a dangling link
#   .done     drained, written only after exit 0 of a job that drains
#   .reserve  4096 written bytes that become .halted by a rename, so that halting needs neither space nor an inode
#   .progress touched by the job when a unit is committed
#   .tally    failures in a row, runs in a row without progress, time of the last progress (written under the lock)
#   .skips    ticks skipped in all, skipped in a row, whether the halt was announced (written by any tick)
# Both counters are rewritten in place at one width: that works on a full disk, and never leaves half a number.

export TZ=UTC LC_ALL=C
umask 027
TICK_DIR=$TICK_STATE/jobs/$TICK_JOB
TICK_RESERVE_BYTES=4096
_tick_fds=() TICK_LOCK_FDS='' _tick_child='' _tick_stop='' _tick_told=0 _tick_row=0

# tick_ready: go on only when not halted, not done, and able to halt.
tick_ready() {
  if [ "$EUID" -eq 0 ] && [ -n "${TICK_USER:-}" ] && [ "$TICK_USER" != root ]; then
    exec setpriv --reuid "$TICK_USER" --regid "$(id -g "$TICK_USER")" --init-groups -- "$0" "$@"
  fi
  { exec {_tick_log}>>"$TICK_LOG"; } 2>/dev/null || tick_cannot "cannot write the log $TICK_LOG"
  [ -d "$TICK_DIR" ] || tick_cannot "the state folder $TICK_DIR is missing"
  _tick_markers
  [ -w "$TICK_DIR" ] || tick_cannot "the state folder $TICK_DIR is not writable"
  _tick_full_reserve || _tick_rarely _tick_rearmed
  trap 'tick_stop' TERM INT HUP
}

# tick_lock NAME...: take all the locks, or leave; waits up to TICK_LOCK_WAIT seconds, for one busy lock at a time.
tick_lock() {
  local deadline='' now name fd busy left rc
  while :; do
    busy=''
    for name in "$@"; do
      [[ " $TICK_LOCK_FDS" == *" $name="* ]] && continue # the one waited for below
      { exec {fd}<"$TICK_LOCK_DIR/$name"; } 2>/dev/null || tick_cannot "cannot open the lock $TICK_LOCK_DIR/$name" 66
      _tick_fds+=("$fd")
      flock -n -E 75 "$fd"
      rc=$?
      if [ "$rc" -eq 75 ]; then
        busy=$name
        break
      fi
      [ "$rc" -eq 0 ] || tick_cannot "flock on $TICK_LOCK_DIR/$name failed with $rc" 66
      TICK_LOCK_FDS+="$name=$fd "
    done
    if [ -z "$busy" ]; then
      # Another tick of this job may have halted or drained it since tick_ready looked.
      _tick_markers
      _tick_rarely _tick_full_reserve || _tick_rearmed
      return 0
    fi
    # Holding one lock while waiting for another is how two jobs stop each other for good: let all go first.
    _tick_release
    [ "${TICK_CONTINUES:-0}" -eq 0 ] || _tick_rarely _tick_under_way "$busy"
    now=$EPOCHSECONDS
    [ -n "$deadline" ] || deadline=$((now + TICK_LOCK_WAIT)) # from the first busy lock, however slow the machine is
    left=$((deadline - now))
    [ "$left" -gt 0 ] || _tick_skip "the lock $busy is busy"
    _tick_rarely : # now: while it waits, an upgrade may replace the files
    exec {fd}<"$TICK_LOCK_DIR/$busy"
    flock -w "$left" -E 75 "$fd" &
    _tick_child=$!
    [ -z "$_tick_stop" ] || kill -TERM "$_tick_child" 2>/dev/null # asked before there was anybody to hand it to
    _tick_await
    [ -z "$_tick_stop" ] || tick_leave 3 more 'asked to stop while waiting for a lock'
    [ "$TICK_RC" -eq 0 ] || _tick_skip "the lock $busy stayed busy for $TICK_LOCK_WAIT s"
    _tick_fds=("$fd") TICK_LOCK_FDS="$busy=$fd "
  done
}

# tick_stop: TERM, INT or HUP came: hand it on; the job finishes its transaction and exits 3.
tick_stop() {
  _tick_stop=1
  [ -z "$_tick_child" ] || kill -TERM "$_tick_child" 2>/dev/null
}

# tick_cannot REASON [CODE]: nothing can be done here; the one case besides a halt in which cron hears of it every time.
tick_cannot() {
  [ -z "${_tick_log:-}" ] || _tick_say unable "$1" 2>/dev/null
  printf 'tickwork: %s cannot run: %s\n' "$TICK_JOB" "$1" >&2
  _tick_exit "${2:-1}"
}

# tick_leave CODE OUTCOME REASON: one line in the log, and out.
tick_leave() {
  _tick_say "$2" "$3"
  _tick_exit "$1"
}

_tick_rarely() { # COMMAND...: run what tick-pass.sh defines
  # shellcheck source=roles/tick/files/tick-pass.sh disable=SC1091
  if ! declare -F tick_run >/dev/null; then
    . "${BASH_SOURCE[0]%/*}/tick-pass.sh" || tick_cannot "tick-pass.sh is missing beside tick.sh"
  fi
  "$@"
}

_tick_exit() { if [ "${TICK_SCHEDULER:-cron}" = cron ]; then exit 0; else exit "$1"; fi; }

_tick_say() {
  { printf 'time=%(%FT%TZ)T job=%s outcome=%s reason="%s"\n' -1 "$TICK_JOB" "$1" "${2//[\"$'\n']/ }" 1>&"$_tick_log"; } 2>/dev/null
  [ -z "${TICK_FOREGROUND:-}" ] || printf 'tickwork: %s %s: %s\n' "$TICK_JOB" "$1" "$2" >&2
}

_tick_await() { # a trapped signal ends `wait` early: the child's own status is in the last one
  local last
  until
    wait "$_tick_child"
    TICK_RC=$?
    ! kill -0 "$_tick_child" 2>/dev/null
  do :; done
  wait "$_tick_child" 2>/dev/null
  last=$?
  [ "$last" -eq 127 ] || TICK_RC=$last
}

_tick_release() {
  local fd
  for fd in "${_tick_fds[@]}"; do exec {fd}<&-; done
  _tick_fds=() TICK_LOCK_FDS=''
}

_tick_markers() { # leave if the job is halted (telling cron, if nobody has) or done
  _tick_read .skips _tick_skips _tick_row _tick_told
  if _tick_is_halted; then
    [ "$_tick_told" -eq 1 ] || _tick_rarely _tick_announce
    tick_leave 4 halted 'halted earlier; see: tickwork explain '"$TICK_JOB"
  fi
  if [ -e "$TICK_DIR/.done" ]; then tick_leave 0 'done' 'drained earlier; nothing to do'; fi
  # A halt that was lifted: the next one is news again. (An unusable folder is tick_ready's to complain about.)
  [ "$_tick_told" -eq 0 ] || _tick_write .skips "$_tick_skips" "$_tick_row" 0 2>/dev/null
  _tick_told=0
}

_tick_is_halted() { [ -e "$TICK_DIR/.halted" ] || [ -L "$TICK_DIR/.halted" ]; }

_tick_full_reserve() {
  local content=''
  [ -f "$TICK_DIR/.reserve" ] && [ ! -L "$TICK_DIR/.reserve" ] && [ -f "$TICK_DIR/.tally" ] && [ -f "$TICK_DIR/.skips" ] &&
    IFS= read -r -N "$TICK_RESERVE_BYTES" content <"$TICK_DIR/.reserve" && [ "${#content}" -eq "$TICK_RESERVE_BYTES" ] || return 1
  # A reason in it: whoever was halting was killed before the rename.
  [[ "$content" != *[!\ ]* ]] || { mv -T "$TICK_DIR/.reserve" "$TICK_DIR/.halted" && _tick_markers; }
}

_tick_skip() { # REASON: the lock is busy; costs no Python
  # shellcheck disable=SC2034 # only the time of the last progress counts here
  local failures idle progress
  _tick_markers # a long wait may have seen a halt, and other ticks that were skipped
  _tick_read .tally failures idle progress
  _tick_skips=$((_tick_skips + 1)) _tick_row=$((_tick_row + 1))
  _tick_write .skips "$_tick_skips" "$_tick_row" 0
  # A pass that is under way, of this job or by hand, brings .progress up to date.
  if [ ! "$TICK_DIR/.progress" -nt "$TICK_DIR/.tally" ] && _tick_stalled "$_tick_row" "$progress"; then
    _tick_rarely _tick_halt "skipped $_tick_row times in a row, no progress for $(((EPOCHSECONDS - progress) / 86400)) days: $1"
    _tick_announce
    tick_leave 4 halted "$1"
  fi
  tick_leave 75 busy "$1"
}

# Days without a tick (a host that was off) are not a stall: three ticks in a row must have come to nothing.
_tick_stalled() {
  [ "$TICK_HALT_AFTER_STALLED" -gt 0 ] && [ "$1" -ge 3 ] && [ "$2" -gt 0 ] && [ $((EPOCHSECONDS - $2)) -ge "$TICK_HALT_AFTER_STALLED" ]
}

_tick_read() { # FILE NAME NAME NAME: three numbers; a file that is missing or garbled counts as zeros
  local a=0 b=0 c=0
  { read -r a b c <"$TICK_DIR/$1"; } 2>/dev/null
  case $a$b$c in '' | *[!0-9]*) a=0 b=0 c=0 ;; esac
  printf -v "$2" %d "$((10#$a))"
  printf -v "$3" %d "$((10#${b:-0}))"
  printf -v "$4" %d "$((10#${c:-0}))"
}

_tick_write() { # FILE NUMBER NUMBER NUMBER
  printf '%012d %012d %012d\n' "$2" "$3" "$4" 1<>"$TICK_DIR/$1"
}
