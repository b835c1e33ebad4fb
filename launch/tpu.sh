#!/usr/bin/env bash
# Trains on a Cloud TPU, one host or a pod. From the top of the checkout, with gcloud set up:
#
#     export ZONE=us-central2-b TYPE=v4-32 WORKDIR=gs://BUCKET/runs/ssa50
#     export CONFIG=configs/imagenet_ssa50_large_batch.py
#     launch/tpu.sh create --spot    # requests the TPU; further options go to gcloud
#     launch/tpu.sh state            # until it says ACTIVE
#     launch/tpu.sh setup            # copies the last commit to every host and installs it
#     launch/tpu.sh start --config.dataset.data_dir=gs://BUCKET/tensorflow_datasets
#     launch/tpu.sh log              # follows the log of the first host, which writes for all
#     launch/tpu.sh stop             # saves and stops; start resumes
#     launch/tpu.sh delete
set -euo pipefail

need() {
  if [[ -z ${!1:-} ]]; then
    echo "$0: set $1, $2" >&2
    exit 2
  fi
}

action=${1:-help}
shift || true
case $action in
  create | state | setup | start | log | stop | delete) ;;
  *)
    sed -n '2,/^set/ s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
need ZONE 'the zone of the TPU, such as us-central2-b'

TPU=${TPU:-ssanet}
case ${TYPE:-} in
  v5lite*) image=v2-alpha-tpuv5-lite ;;
  v5p*) image=v2-alpha-tpuv5 ;;
  v6e*) image=v2-alpha-tpuv6e ;;
  *) image=tpu-ubuntu2204-base ;;
esac
RUNTIME=${RUNTIME:-$image}
CONFIG=${CONFIG:-configs/imagenet_ssa50.py}
CACHE=${JAX_COMPILATION_CACHE_DIR:-}

tpus() { gcloud compute tpus "$@" --zone="$ZONE"; }
on() { tpus tpu-vm ssh "$TPU" --worker="$1" --command="set -euo pipefail; $2"; }
running='pgrep --pidfile=ssanet/run.pid --full until_done.sh'

case $action in
  create)
    need TYPE 'the type of the TPU, such as v4-32'
    tpus queued-resources create "$TPU" --node-id="$TPU" --runtime-version="$RUNTIME" \
      --accelerator-type="$TYPE" "$@"
    ;;
  state)
    tpus queued-resources describe "$TPU" --format='value(state.state)'
    ;;
  setup)
    archive=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$archive"' EXIT
    git archive --output="$archive" HEAD
    tpus tpu-vm scp "$archive" "$TPU:ssanet.tar.gz" --worker=all
    # The Python of these images may be older than 3.11; uv installs one.
    on all 'mkdir -p ssanet; tar -xzf ssanet.tar.gz -C ssanet; cd ssanet
      python3 -m pip install --quiet --user uv
      python3 -m uv venv --quiet --allow-existing --python=3.12 .venv
      python3 -m uv pip install --quiet --python=.venv --constraint=requirements-test.txt \
        --editable=".[tensorflow,tpu]"'
    ;;
  start)
    need WORKDIR 'a folder that all hosts see, such as gs://BUCKET/runs/ssa50'
    command=$(printf '%q ' env ${CACHE:+"JAX_COMPILATION_CACHE_DIR=$CACHE"} launch/until_done.sh \
      .venv/bin/python main.py --config="$CONFIG" --workdir="$WORKDIR" "$@")
    on all "if $running 2>/dev/null; then echo 'It is running already.' >&2; exit 1; fi
      cd ssanet; setsid $command </dev/null >>run.log 2>&1 & echo \$! >run.pid"
    ;;
  log)
    on 0 'tail --lines=50 --follow=name ssanet/run.log'
    ;;
  stop)
    on all "pid=\$($running); kill \$pid; tail --pid=\$pid --follow /dev/null; tail ssanet/run.log"
    ;;
  delete)
    tpus queued-resources delete "$TPU" --force
    ;;
esac
