#!/bin/bash
# The fake upstream of each host, in the host's network namespace but outside of its file system, so that it can judge.
#
#   upstream.sh start|stop NAME...
#   upstream.sh judgement NAME        figures about all requests so far, as JSON
#   upstream.sh faults NAME JSON      switch faults on; [] for none
set -euo pipefail
FOLDER=${TICKWORK_HOSTS:?set TICKWORK_HOSTS to the hosts\' folder}
PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$0")/../.."

ask() { # NAME PATH [JSON]
  ip netns exec "tickwork-$1" "$PYTHON" -c '
import sys, urllib.request
data = sys.argv[2].encode() if len(sys.argv) > 2 else None
print(urllib.request.urlopen("http://127.0.0.1:8080/-/" + sys.argv[1], data, 10).read().decode())' "${@:2}"
}

command=$1
shift
case $command in
  start)
    for name in "$@"; do
      ip netns exec "tickwork-$name" setsid "$PYTHON" -m tests.upstreams.oai --port 8080 --books 400 \
        --ready-file "$FOLDER/$name.ready" </dev/null >"$FOLDER/$name.upstream.log" 2>&1 &
      echo $! >"$FOLDER/$name.upstream.pid"
      for _ in {1..100}; do [ -s "$FOLDER/$name.ready" ] || sleep 0.1; done
      [ -s "$FOLDER/$name.ready" ]
    done
    ;;
  stop)
    for name in "$@"; do
      [ ! -f "$FOLDER/$name.upstream.pid" ] || kill "$(cat "$FOLDER/$name.upstream.pid")" 2>/dev/null || true
      rm -f "$FOLDER/$name.upstream.pid" "$FOLDER/$name.ready"
    done
    ;;
  judgement) ask "$1" judgement ;;
  faults) ask "$1" faults "$2" ;;
  *) echo "upstream.sh start|stop|judgement|faults NAME" >&2 && exit 2 ;;
esac
