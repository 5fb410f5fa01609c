#!/bin/sh
# Trains a policy of this folder from nothing: demonstrations and four stages; then recoveries from the policy's own
# errors and the last stage again; the bundle. The held-out observations come first: they need the demonstrations only.
#
#   policies/train.sh POLICY SUITE FOLDER [TASKS]      # or: make train-tiny-libero
#
# POLICY is a folder with a recipe.toml, SUITE a suite of LIBERO whose tasks move one object to one place. TASKS, such as
# 4-5, are those that the policy solves least often: they get more recoveries, and the last stage is trained once more.
# The same command goes on where an earlier one was stopped. FOLDER takes about 3 GB.
set -eu

usage="usage: train.sh POLICY SUITE FOLDER [TASKS]"
recipe=${1:?$usage}/recipe.toml
suite=${2:?$usage}
folder=${3:?$usage}
weak_tasks=${4:-}
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
action_again() { # BEFORE RUN DATA ...: the last stage, from the weights of the run before
    before=$1 after=$2 && shift 2
    copied "$before/vae" "$after/vae"
    copied "$before/latents" "$after/latents"
    stage action "$after" --data "$@" --start "$before"
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
END
if test -z "$weak_tasks"; then
    echo "  together         2.5 h"
else
    cat <<END
  more recoveries  0.2 h   36 episodes of each of the tasks $weak_tasks
  action again     0.5 h   1400 steps
  together         3.2 h
END
fi
echo "Each one says its own time left once it has begun."

demos --episodes 30 --out "$demonstrations"
wavserve train held-out --recipe "$recipe" --data "$demonstrations" --out "$folder/held-out.safetensors"
for name in vae video value action; do
    stage $name "$folder/run-0" --data "$demonstrations"
done
bundle "$folder/run-0" "$folder/bundle-0"

demos --episodes 10 --policy "$folder/bundle-0" --out "$folder/recoveries"
action_again "$folder/run-0" "$folder/run-1" "$demonstrations" "$folder/recoveries"
last=$folder/run-1

if test -n "$weak_tasks"; then
    bundle "$folder/run-1" "$folder/bundle-1"
    demos --tasks "$weak_tasks" --episodes 36 --policy "$folder/bundle-1" --out "$folder/recoveries-1"
    action_again "$folder/run-1" "$folder/run-2" "$demonstrations" "$folder/recoveries" "$folder/recoveries-1"
    last=$folder/run-2
fi
bundle "$last" "$folder/bundle"

cat <<END
The bundle is $folder/bundle. To serve it: make serve ARGS="--bundle $folder/bundle"
END
