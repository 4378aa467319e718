#!/usr/bin/env bash
# Stage 2, or opticalFlow.py, for all parts: here, or as one batch job a part.
#
#   ./saveFeatures.sh --local --root demo --parts 2   # all parts here, one after the other
#   ./saveFeatures.sh --local --at-once 2 ...         # two at a time
#   ./saveFeatures.sh --root DIR --account ABC        # 12 jobs; flags: generate_pbs.py --help
#   ./saveFeatures.sh --dry-run ...                  # only shows what would be submitted
#   ./saveFeatures.sh --root DIR --status            # a line a part
#   ./saveFeatures.sh --root DIR --resubmit          # sends the parts that died
#
#   ./saveFeatures.sh --stage opticalFlow ...        # all that for opticalFlow.py
#   ./saveFeatures.sh --stage rnn ...                # a training, one batch job
#
# All other flags go to saveFeatures_1024.py (--local) or generate_pbs.py. Finished clips
# are skipped, so the same command goes on where it stopped. Exit code of --local: 0 all
# done; 3 all but the clips named; 4 stopped before the end; others: an error.
# Python is $PYTHON, else .venv beside this file, else python.
set -eu
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x "$here/.venv/bin/python" ] || PYTHON=$here/.venv/bin/python
fi

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

refuse() { echo "error: $1" >&2; exit 2; }

stage=saveFeatures_1024 where=batch at_once=1 parts=12 flags=()
while [ $# -gt 0 ]; do
    case $1 in --at-once | --stage | --parts)
        [ $# -gt 1 ] || refuse "$1: expected a value"
        set -- "$1=$2" "${@:3}" ;;
    esac
    case $1 in
        -h | --help) usage; exit ;;
        --local) where=here ;;
        --status) where=batch; flags+=("$1") ;;
        --at-once=*) at_once=${1#*=} ;;
        --stage=*) stage=${1#*=} ;;
        --parts=*) parts=${1#*=}; flags+=("$1") ;;
        *) flags+=("$1") ;;
    esac
    shift
done

# ---- here: a few parts at a time -------------------------------------------------

code=0 running=()

# Waits for the oldest part. Bad clips (3) do not stop the others; anything worse does.
collect() {
    local result=0
    wait "${running[0]}" || result=$?
    running=("${running[@]:1}")
    [ "$result" = 0 ] || code=$result
    case $result in
        0 | 3) ;;
        2) echo "all flags: ./saveFeatures.sh --help, python $stage.py --help" >&2; stop 2 ;;
        *) stop "$result" ;;
    esac
}

# What comes after all parts, with those of the flags that it takes too.
say_next() {
    local next='python save_hdf5.py' flags_of_next=() i
    [ "$stage" = saveFeatures_1024 ] || next='python frameBasedTrain.py --stream flow'
    set -- ${flags[@]+"${flags[@]}"}
    while [ $# -gt 0 ]; do
        case $1 in
            --root | --split | --stream | --fusion | --layer | --fold)
                [ $# -lt 2 ] || { flags_of_next+=("$1" "$2"); shift; } ;;
            --root=* | --split=* | --stream=* | --fusion=* | --layer=* | --fold=*)
                flags_of_next+=("$1") ;;
        esac
        shift
    done
    for i in ${flags_of_next[@]+"${flags_of_next[@]}"}; do next+=" $(printf %q "$i")"; done
    if [ "$code" = 3 ] && [ "$stage" = saveFeatures_1024 ]; then
        next+=' --allow-missing, or mend the clips named above and run this again'
    fi
    echo "next: $next"
}

stop() {
    trap '' INT TERM HUP
    # A part leaves by itself within two seconds and keeps what is finished.
    [ ${#running[@]} = 0 ] || kill -TERM "${running[@]}" 2>/dev/null || :
    wait
    exit "$1"
}

# Of no number `seq` would make no part, and all would be well.
whole() {
    [[ $2 =~ ^0*[1-9][0-9]{0,5}$ ]] || refuse "$1 '$2': expected a whole number, at least 1"
}

if [ $where = here ]; then
    whole --parts "$parts"
    whole --at-once "$at_once"
    trap 'stop 4' INT TERM HUP
    for part in $(seq "$parts"); do
        [ ${#running[@]} -lt "$at_once" ] || collect
        "$PYTHON" "$here/$stage.py" "$part" ${flags[@]+"${flags[@]}"} &
        running+=($!)
    done
    while [ ${#running[@]} -gt 0 ]; do collect; done
    say_next
    exit $code
fi

# ---- batch jobs: one file a part, submitted one by one -----------------------------

exec "$PYTHON" "$here/generate_pbs.py" --submit --stage "$stage" ${flags[@]+"${flags[@]}"}
