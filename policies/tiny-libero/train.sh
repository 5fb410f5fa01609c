#!/bin/sh
# Trains the policy `tiny-libero` from nothing: demonstrations, four stages, the bundle, the held-out observations.
#
#   policies/tiny-libero/train.sh FOLDER      # or: make train-tiny-libero
#
# The same command goes on where an earlier one was stopped. FOLDER takes about 2 GB.
set -eu

folder=${1:?usage: train.sh FOLDER}
recipe=$(dirname "$0")/recipe.toml
data=$folder/demonstrations
of_run() {
    action=$1 && shift
    wavserve train "$action" --recipe "$recipe" --folder "$folder/run" "$@"
}

cat <<'END'
Predicted for two cores that do nothing else, with 8 GB of memory:
  demonstrations   1.2 h   900 episodes, two simulators
  vae              0.5 h   8000 steps
  video            0.3 h   2000 steps
  value            0.1 h   1500 steps
  action           3.2 h  12000 steps
  together         5.3 h
Each stage says its own time left once it has begun.
END

mkdir -p "$folder"
wavserve train demos --suite libero_object --tasks 0-9 --episodes 90 --seed 0 --workers 2 --out "$data"
for stage in vae video value action; do
    of_run $stage --data "$data"
done
if ! test -e "$folder/bundle"; then
    of_run bundle --out "$folder/bundle"
fi
wavserve train held-out --recipe "$recipe" --data "$data" --out "$folder/held-out.safetensors"

cat <<END
The bundle is $folder/bundle. To serve it: make serve ARGS="--bundle $folder/bundle"
END
