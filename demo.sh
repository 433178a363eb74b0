#!/bin/bash
# A tour in four minutes: deploys with the real roles into .demo, without root and with nothing scheduled, starts a fake
# OAI-PMH server on loopback, and ticks harvest and backfill through the real wrappers until they are drained.
#   ./demo.sh               generated records
#   ./demo.sh --data DIR    real records (doab_books_2018.csv and doab-check_test.xml in DIR)
#   ./demo.sh --live        the real DOAB, one small pass
#   ./demo.sh --stop        end the search service that the demo leaves running
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh

debian_packages flock=util-linux timeout=coreutils setpriv=util-linux
python_environment "deploy,$(vectors_extra),default-model,serve"
exec .venv/bin/python scripts/demo.py "$@"
