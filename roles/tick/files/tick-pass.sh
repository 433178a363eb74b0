# shellcheck shell=bash disable=SC2154 # the variables are those of tick.sh
# tick-pass.sh: the part of tick.sh that a skipped tick has no need to read: the pass itself, and what is rare.

# tick_run COMMAND...: one pass under the locks, in a process group of its own; sets TICK_RC.
tick_run() {
  [ -z "$_tick_stop" ] || tick_leave 3 more 'asked to stop before it began'
  _tick_started=$EPOCHSECONDS
  export TICKWORK_WRAPPED=$TICK_JOB TICKWORK_LOCK_FDS=${TICK_LOCK_FDS% }
  if [ -n "${TICK_FOREGROUND:-}" ]; then
    timeout --preserve-status -k "$TICK_KILL_AFTER" "$TICK_TIMEOUT" "$@" &
  else
    timeout --preserve-status -k "$TICK_KILL_AFTER" "$TICK_TIMEOUT" "$@" </dev/null >&"$_tick_log" 2>&1 &
  fi
  _tick_child=$!
  [ -z "$_tick_stop" ] || kill -TERM "$_tick_child" 2>/dev/null
  _tick_await
  # Told to stop before it could listen (Python was still starting): that is no failure.
  [ "$TICK_RC" -ne 143 ] || [ -z "$_tick_stop" ] || TICK_RC=3
  # timeout leads the group: whatever the job left behind ends here, before anybody else can have the lock.
  # Bounded, because a zombie that nobody reaps keeps its group alive without being able to do anything.
  local _
  for _ in {1..250}; do
    kill -KILL -- "-$_tick_child" 2>/dev/null || break
    sleep 0.02
  done
}

# tick_end: record the outcome and make it last. Leaves the wrapper.
tick_end() {
  local failures idle progress said now=$EPOCHSECONDS reason="exit $TICK_RC after $((EPOCHSECONDS - _tick_started)) s" outcome code=$TICK_RC
  _tick_read .tally failures idle progress
  idle=$((idle + 1))
  if [ "$TICK_RC" -eq 0 ] || [ "$TICK_DIR/.progress" -nt "$TICK_DIR/.tally" ] || [ "$progress" -eq 0 ]; then
    progress=$now idle=0
  fi
  case $TICK_RC in
    0) outcome=drained failures=0 ;;
    3) outcome=more failures=0 ;;
    4) outcome=halted ;;
    69) outcome=unreachable failures=0 ;;
    75) outcome=busy ;;
    *) outcome=crashed failures=$((failures + 1)) ;;
  esac
  _tick_write .tally "$failures" "$idle" "$progress"
  _tick_read .skips _tick_skips _tick_row _tick_told # other ticks of this job were skipped meanwhile
  _tick_write .skips "$_tick_skips" 0 "$_tick_told"
  if [ "$TICK_RC" -eq 4 ]; then
    _tick_halt "$TICK_JOB asked to halt and gave no reason; see $TICK_LOG"
  elif [ "$failures" -gt 0 ] && [ "$failures" -ge "$TICK_HALT_AFTER_FAILURES" ]; then
    said="$failures failures in a row, the last"
    [ "$failures" -ne 1 ] || said='failed once,'
    _tick_halt "$said with exit $TICK_RC; see $TICK_LOG"
  elif _tick_stalled "$idle" "$progress"; then
    _tick_halt "no unit done and no success for $(((now - progress) / 86400)) days; see $TICK_LOG"
  fi
  if _tick_is_halted; then
    outcome=halted code=4
    [ "$_tick_told" -eq 1 ] || _tick_announce
  elif [ "$TICK_RC" -eq 0 ] && [ "$TICK_DRAINS" -eq 1 ]; then
    printf '%(%FT%TZ)T drained\n' -1 >"$TICK_DIR/.done.new" && mv -T "$TICK_DIR/.done.new" "$TICK_DIR/.done" ||
      reason+='; could not write .done'
  fi
  _tick_metrics "$now" "$TICK_RC" "$((now - _tick_started))"
  _tick_release
  tick_leave "$code" "$outcome" "$reason"
}

# _tick_under_way BUSY: of a job that continues. While its own pass is under way a tick has nothing to do, and ends
# without a word, a count or a metric.
_tick_under_way() {
  local fd rc own=job.$TICK_JOB
  if [ "$1" != "$own" ]; then
    # A shared lock is busy: by its own pass, or by another job's?
    { exec {fd}<"$TICK_LOCK_DIR/$own"; } 2>/dev/null || tick_cannot "cannot open the lock $TICK_LOCK_DIR/$own" 66
    flock -n -E 75 "$fd"
    rc=$?
    exec {fd}<&-
    case $rc in
      0) return 0 ;;
      75) ;;
      *) tick_cannot "flock on $TICK_LOCK_DIR/$own failed with $rc" 66 ;;
    esac
  fi
  [ -n "${TICK_FOREGROUND:-}" ] || _tick_exit 0
  printf 'tickwork: %s busy: its pass is under way\n' "$TICK_JOB" >&2
  _tick_exit 75
}

# No reserve means a new job, or an operator who removed .halted: start the counters afresh, and run only if all fits.
_tick_rearmed() {
  local fresh=$TICK_DIR/.reserve.$$ # another tick of this job may be at it too
  if ! {
    printf "%${TICK_RESERVE_BYTES}s" '' >"$fresh" && sync "$fresh" &&
      _tick_write .tally 0 0 "$EPOCHSECONDS" && _tick_write .skips "$_tick_skips" 0 0 &&
      mv -T "$fresh" "$TICK_DIR/.reserve" && sync "$TICK_DIR"
  } 2>/dev/null; then
    rm -f "$fresh"
  fi
  _tick_full_reserve || tick_cannot "no room for the reserve in $TICK_DIR (full disk?)"
}

_tick_halt() {
  _tick_is_halted && return
  local line
  printf -v line 'time=%(%FT%TZ)T job=%s reason="%s"' -1 "$TICK_JOB" "${1//[\"$'\n']/ }"
  printf "%-$((TICK_RESERVE_BYTES - 1)).$((TICK_RESERVE_BYTES - 1))s\n" "$line" 1<>"$TICK_DIR/.reserve"
  mv -T "$TICK_DIR/.reserve" "$TICK_DIR/.halted"
  sync "$TICK_DIR/.halted" "$TICK_DIR"
  _tick_is_halted || tick_cannot "must halt (${1}) but cannot write $TICK_DIR/.halted"
}

_tick_announce() { # the one line cron mails for a halt, whoever wrote the marker
  local line=''
  [ ! -f "$TICK_DIR/.halted" ] || { read -r line <"$TICK_DIR/.halted"; } 2>/dev/null # a pipe would keep us here
  line=${line#*reason=\"} line=${line%%\"*}
  printf 'tickwork: %s halted: %s. Then: tickwork explain %s\n' "$TICK_JOB" "${line:-no reason given}" "$TICK_JOB"
  _tick_write .skips "$_tick_skips" 0 1
  _tick_metrics
}

# _tick_metrics [NOW EXIT-CODE SECONDS]: for node_exporter's textfile collector; without figures the last run's stay.
_tick_metrics() {
  [ -n "${TICK_METRICS:-}" ] || return 0
  local halted=0 done=0 file=$TICK_METRICS/$TICK_JOB.tick.prom line kept=''
  if [ $# -eq 0 ]; then
    while read -r line; do
      case $line in tickwork_job_last_* | tickwork_job_duration_*) kept+=$line$'\n' ;; esac
    done 2>/dev/null <"$file"
  else
    printf -v kept 'tickwork_job_last_run_timestamp_seconds{job="%s"} %s\n' "$TICK_JOB" "$1"
    printf -v line 'tickwork_job_last_exit_code{job="%s"} %s\n' "$TICK_JOB" "$2"
    kept+=$line
    printf -v line 'tickwork_job_duration_seconds{job="%s"} %s\n' "$TICK_JOB" "$3"
    kept+=$line
  fi
  _tick_is_halted && halted=1
  [ -e "$TICK_DIR/.done" ] && done=1
  umask 022 # whoever collects them is another user
  {
    printf '%s' "$kept"
    printf 'tickwork_job_halted{job="%s"} %s\n' "$TICK_JOB" "$halted"
    printf 'tickwork_job_done{job="%s"} %s\n' "$TICK_JOB" "$done"
    printf 'tickwork_job_lock_skips_total{job="%s"} %s\n' "$TICK_JOB" "$_tick_skips"
    printf 'tickwork_job_interval_seconds{job="%s"} %s\n' "$TICK_JOB" "$TICK_INTERVAL"
  } 2>/dev/null >"$file.$$" && mv -T "$file.$$" "$file"
  umask 027
  chmod 644 "$TICK_METRICS/$TICK_JOB.pass.prom" 2>/dev/null # of the pass, which began with the umask of data
}
