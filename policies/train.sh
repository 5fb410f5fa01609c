#!/bin/sh
# Trains a policy of this folder from nothing: demonstrations and four stages; then recoveries from the policy's own
# errors and the last stage again; the bundle. The held-out observations come first: they need the demonstrations only.
#
#   policies/train.sh POLICY SUITE FOLDER      # or: make train-tiny-libero
#
# POLICY is a folder with a recipe.toml, SUITE a suite of LIBERO whose tasks move one object to one place. The same
# command goes on where an earlier one was stopped. FOLDER takes about 3 GB.
set -eu

usage="usage: train.sh POLICY SUITE FOLDER"
recipe=${1:?$usage}/recipe.toml
suite=${2:?$usage}
folder=${3:?$usage}
demonstrations=$folder/demonstrations

demos() {
    wavserve train demos --suite "$suite" --tasks 0-9 --seed 0 --workers 2 "$@"
}
stage() { # NAME RUN ...
    stage=$1 run=$2 && shift 2
    wavserve train "$stage" --recipe "$recipe" --folder "$run" "$@"
}
bundle() { # RUN FOLDER
    test -e "$2" || stage bundle "$1" --out "$2"
}
copied() { # FROM TO: whole, or not at all
    test -e "$2" && return
    mkdir -p "$(dirname "$2")" && rm -rf "$2.partial"
    cp -r "$1" "$2.partial" && mv "$2.partial" "$2"
}

cat <<'END'
Predicted for two cores that do nothing else, with 8 GB of memory:
  demonstrations   0.6 h    300 episodes, two simulators
  vae              0.4 h   3000 steps
  video            0.2 h    800 steps
  value            0.1 h    700 steps
  action           0.5 h   1400 steps
  recoveries       0.2 h    100 episodes
  action again     0.5 h   1400 steps
  together         2.5 h
Each one says its own time left once it has begun.
END

demos --episodes 30 --out "$demonstrations"
wavserve train held-out --recipe "$recipe" --data "$demonstrations" --out "$folder/held-out.safetensors"
for name in vae video value action; do
    stage $name "$folder/run-0" --data "$demonstrations"
done
bundle "$folder/run-0" "$folder/bundle-0"

demos --episodes 10 --policy "$folder/bundle-0" --out "$folder/recoveries"
copied "$folder/run-0/vae" "$folder/run-1/vae"
copied "$folder/run-0/latents" "$folder/run-1/latents"
stage action "$folder/run-1" --data "$demonstrations" "$folder/recoveries" --start "$folder/run-0"
bundle "$folder/run-1" "$folder/bundle"

cat <<END
The bundle is $folder/bundle. To serve it: make serve ARGS="--bundle $folder/bundle"
END
