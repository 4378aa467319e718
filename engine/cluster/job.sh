# What a batch job does before and around its stage, on the node. Sourced by the job files that
# engine/cluster/jobfile.py writes; all that is printed stands in the job's log. For bash 4.

# not_started REASON: ends the job; the reason is its log's last line, which --status shows.
not_started() {
    local words  # by bash alone: PATH may be what is wrong
    read -r -d '' -a words <<<"$1"
    words=${words[*]}
    echo "not started: ${words:0:500}"
    exit 1
}

# load MODULE. Old kinds of `module` end well whatever has happened, so it is heard first in a
# shell of its own.
load() {
    local said
    said=$(module load "$1" 2>&1) || not_started "module load $1: $said"
    case $said in *ERROR:*) not_started "module load $1: $said" ;; esac
    module load "$1"
}

# needs KERNEL VARIABLE PYTHON...: Python runs, and has the compiled kernel of that name (none: -);
# the slower way, whose numbers differ by rounding, is for those who ask for it.
needs() {
    local kernel=$1 variable=$2 found code=
    shift 2
    [ "$kernel" = - ] ||
        code="from engine.fast.compiled import kernel_name; print(kernel_name('$kernel', '$variable'))"
    found=$(cd "$here" && "$@" -c "$code" </dev/null) || not_started "$* does not run on $HOSTNAME"
    case $found in *'numpy ('*)
        not_started "no compiled kernel: $found; load a compiler (--module gcc), or ask for the \
slower way: --setup 'export $variable=numpy'" ;;
    esac
}

# nodes_file FILE CORES PROCESSES: of each node's CORES lines in the scheduler's list the first
# PROCESSES, for an mpiexec that does not know the scheduler. Sets `machines`; Slurm has no list.
nodes_file() {
    machines=()
    if [ -z "${SLURM_JOB_ID:-}" ] && [ -f "${PBS_NODEFILE:-}" ]; then
        awk -v cores="$2" -v processes="$3" 'seen[$0]++ % cores < processes' \
            "$PBS_NODEFILE" >"$1" || not_started "no list of nodes: $1"
        machines=(-machinefile "$1")
    fi
}

# run COMMAND...: as `exec` does, but when the walltime is nearly over (USR1 of Slurm, or our own
# clock after $seconds) the stage is told, saves and leaves, and the job is sent again: by Slurm
# itself or by `again`. A signal from elsewhere, a person's qdel, only ends it. However a job came
# back, by that or as its node died, it does so at most $most times.
run() {
    local before child timer='' warned='' told='' heard=1 code=1 last=1
    before=$(times_before)
    [ "$before" -le "$most" ] || not_started "it was sent again $most times"
    [ -z "$seconds" ] || {
        (trap 'kill $!; exit' TERM; sleep $((seconds - SECONDS)) & wait; kill -USR1 $$) &
        timer=$!
    }
    trap 'heard=1 warned=1; kill -TERM $child 2>/dev/null' USR1
    trap 'heard=1 told=1; kill -TERM $child 2>/dev/null' TERM INT
    "$@" </dev/null &
    child=$!
    # A signal ends `wait`; 127: there is nobody left to wait for.
    while [ -n "$heard" ] && [ "$last" != 127 ]; do
        heard=
        wait $child
        last=$?
        [ "$last" = 127 ] || code=$last
    done
    [ -z "$timer" ] || kill "$timer" 2>/dev/null
    # 4: a part has left by its own clock
    if [ -z "$told" ] && [ "$code" != 0 ] && { [ -n "$warned" ] || [ "$code" = 4 ]; }; then
        send_again
    fi
    exit "$code"
}

# times_before: how often this job has begun before. PBS does not tell, so $starts has a line a
# start; a submission by a person removes it.
times_before() {
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        echo "${SLURM_RESTART_COUNT:-0}"
    else
        echo "${PBS_JOBID:-} on $HOSTNAME" >>"$starts"
        echo $(($(wc -l <"$starts") - 1))
    fi
}

send_again() {
    if [ "$before" -ge "$most" ]; then
        echo "not sent again: it was $most times"
        return
    fi
    echo "the walltime is nearly over: sent again, $((before + 1)) of at most $most times"
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        scontrol requeue "$SLURM_JOB_ID"
    else
        "${again[@]}" </dev/null
    fi
}
