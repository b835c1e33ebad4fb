#!/usr/bin/env bash
# Runs a command and restarts it until it is done.
#
#     launch/until_done.sh .venv/bin/python main.py --config=... --workdir=...
#
# It is done when it exits with 0, or with a code for which retrying is pointless; docs/launch.md
# lists the codes. SIGTERM, SIGINT and SIGHUP are forwarded to the command, which is then not
# restarted. Exits with the last exit code of the command.
set -euo pipefail

FINAL_CODES="0 2 3 74 126 127 ${ALSO_FINAL:-}"
MAX_RESTARTS=${MAX_RESTARTS:-20}    # in a row; a run of RESET_AFTER seconds resets the count
RESET_AFTER=${RESET_AFTER:-3600}
FIRST_PAUSE=${FIRST_PAUSE:-10}      # seconds before the first restart, doubled each time
LONGEST_PAUSE=${LONGEST_PAUSE:-120} # up to this; JAX's hosts wait 300 s for each other

if (($# == 0)); then
  echo "usage: $0 COMMAND [ARGUMENT...]" >&2
  exit 2
fi

signal=''
child=''
notified=''
forward() {
  signal=$1
  if kill -s "$1" "$child" 2>/dev/null; then # fails if it has ended or not started
    notified=$child
  fi
}
trap 'forward TERM' TERM HUP
trap 'forward INT' INT

# Runs a command and sets `code`. The command gets a separate process group (set -m), so that
# Ctrl-C reaches it only once, from here: a second signal would stop a run before it has saved.
run() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  if [[ $signal && $notified != "$child" ]]; then # it came while no command ran
    forward "$signal"
  fi
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true # a signal also ends the wait
  done
  code=0
  wait "$child" || code=$?
}

restarts=0
while true; do
  started=$SECONDS
  run "$@"
  result=$code
  lasted=$((SECONDS - started))
  if [[ $signal || " $FINAL_CODES " == *" $result "* ]]; then
    exit "$result"
  fi
  if ((lasted >= RESET_AFTER)); then
    restarts=0
  fi
  if ((restarts == MAX_RESTARTS)); then
    echo "$0: exit code $result after $lasted s; gave up after $restarts restarts." >&2
    exit "$result"
  fi
  pause=$((FIRST_PAUSE << (restarts < 20 ? restarts : 20)))
  pause=$((pause < LONGEST_PAUSE ? pause : LONGEST_PAUSE))
  restarts=$((restarts + 1))
  echo "$0: exit code $result after $lasted s; restart $restarts of $MAX_RESTARTS in $pause s." >&2
  run sleep "$pause"
  if [[ $signal ]]; then
    exit "$result"
  fi
done
