# shellcheck shell=bash
# Sourced by what boots machines. Their processes and mounts are in namespaces of their own, so that none can be lost.

# apart COMMAND...: run it there, and at the end, however this script ends, end all of it and call `clean`.
apart() {
  trap _end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # The first process of such namespaces must be one that reaps orphans, as bash does.
  unshare --mount --pid --fork --kill-child --mount-proc bash -c '"$@"; exit $?' apart "$@" &
  wait $!
}

_end() {
  local job first
  for job in $(jobs -p); do
    # With the first process of the namespaces all of them end.
    read -r first _ 2>/dev/null <"/proc/$job/task/$job/children" || true
    kill -KILL "$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
    for _ in {1..40}; do
      [ -d "/proc/${first:-none}" ] || break
      sleep 0.25
    done
  done
  clean
}
