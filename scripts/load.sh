#!/bin/bash
# Keeps the machine busy, to see what leans on a quiet one:  scripts/load.sh 6   six busy processes, until it is ended
# The processes end with this script, whatever ends it: each looks once a second whether it is still there.
set -euo pipefail

count=${1:-}
case $count in '' | *[!0-9]* | 0) echo "usage: ${0##*/} COUNT" >&2 && exit 2 ;; esac

busy() { # PID: until that process is gone
  local until
  while kill -0 "$1" 2>/dev/null; do
    until=$((SECONDS + 1))
    while [ "$SECONDS" -lt "$until" ]; do :; done
  done
}

for ((n = 0; n < count; n++)); do busy $$ & done
trap 'exit 0' INT TERM HUP
echo "$count busy processes"
wait
