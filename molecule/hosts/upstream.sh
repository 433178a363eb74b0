#!/bin/bash
# The fake upstreams of each host, in the host's network namespace but outside of its file system, so that they can judge:
# an OAI-PMH server at port 8080, and a network of the AT Protocol, its directory at 8100, its relay at 8101, its servers
# from 8102 on.
#
#   upstream.sh start|stop NAME...
#   upstream.sh judgement NAME        figures about all requests to the OAI-PMH server so far, as JSON
#   upstream.sh faults NAME JSON      switch its faults on; [] for none
#   upstream.sh network NAME          the same figures of the network, what was done wrong, how many records there are
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

network() { # NAME
  ip netns exec "tickwork-$1" "$PYTHON" -c '
import json, sys, urllib.request
def ask(what): return json.load(urllib.request.urlopen("http://127.0.0.1:8100/-/" + what, None, 10))
accounts = json.load(open(sys.argv[1]))["dids"]
records = sum(len(ask("truth?did=" + did)) for did in accounts)
print(json.dumps({**ask("summary"), "violations": ask("violations"), "accounts": len(accounts), "records": records}))' \
    "$FOLDER/$1.network"
}

# NAME READY-FILE MODULE OPTION...: in the background, until its file says that it is there.
serve() {
  ip netns exec "tickwork-$1" setsid "$PYTHON" -m "${@:3}" "$FOLDER/$1.$2" </dev/null >"$FOLDER/$1.$2.log" 2>&1 &
  echo $! >"$FOLDER/$1.$2.pid"
  for _ in {1..100}; do [ -s "$FOLDER/$1.$2" ] || sleep 0.1; done
  [ -s "$FOLDER/$1.$2" ]
}

command=$1
shift
case $command in
  start)
    for name in "$@"; do
      serve "$name" upstream tests.upstreams.oai --port 8080 --books 400 --ready-file
      serve "$name" network tests.upstreams.pds --port 8100 --hosts 3 --accounts 20 --announce
    done
    ;;
  stop)
    for name in "$@"; do
      for fake in upstream network; do
        [ ! -f "$FOLDER/$name.$fake.pid" ] || kill "$(cat "$FOLDER/$name.$fake.pid")" 2>/dev/null || true
        rm -f "$FOLDER/$name.$fake.pid" "$FOLDER/$name.$fake"
      done
    done
    ;;
  judgement) ask "$1" judgement ;;
  faults) ask "$1" faults "$2" ;;
  network) network "$1" ;;
  *) echo "upstream.sh start|stop|judgement|faults|network NAME" >&2 && exit 2 ;;
esac
