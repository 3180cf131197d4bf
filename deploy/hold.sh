#!/bin/sh
# The entrypoint of the images. After exit codes 2, 3 and 4 a worker or trainer needs a person: each restart after 4 would set
# more messages aside. No restart policy of Docker or Kubernetes knows exit codes, so the container is held until it is stopped.
held=${TMPDIR:-/tmp}/held
case ${1:-} in
--alive) # a probe: whether it works, or waits for a person; the argument is the port of its metrics
  [ -e "$held" ] || exec python -c "import sys, urllib.request as u; u.urlopen(f'http://127.0.0.1:{sys.argv[1]}/healthz', timeout=2)" "$2"
  exit 0
  ;;
worker | trainer) ;;
*) exec tamis "$@" ;;
esac
rm -f "$held"
trap '' PIPE # the reader of the log may be gone
stopped=
tamis "$@" &
child=$!
trap 'stopped=1; kill -TERM $child 2>/dev/null' TERM INT
wait $child
code=$?
if [ "$stopped" ]; then # the signal has ended `wait`, not the process
  wait $child
  exit $?
fi
case $code in
2 | 3 | 4)
  echo "{\"event\": \"held after exit code $code: a restart does not help. The lines above say why; restart the container after that\", \"level\": \"critical\"}" >&2
  : >"$held"
  trap 'kill $! 2>/dev/null; exit $code' TERM INT
  while :; do
    sleep 3600 &
    wait $!
  done
  ;;
esac
exit $code
