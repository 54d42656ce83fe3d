# shellcheck shell=bash
# Host files: a machine a line and its number of ranks, as in launch/hosts.example.
#
#   source launch/hosts.sh             after scripts/setup.sh, which brings say and refuse
#   machines=$(read_hosts FILE)        "NAME SLOTS" a line
#   place_on "$machines"               makes MPIRUN start its ranks there, machine by machine, and counts them in SLOTS

# Names of variables that ssh does not carry to other machines, and ranks there should find as here.
HOSTS_VARIABLES='^(PATH|LD_LIBRARY_PATH|XDG_CACHE_HOME|MPI4PY_LIBMPI|(OMP|OPENBLAS|MKL)_NUM_THREADS|OPENBLAS_CORETYPE|(DDPGD|NCCL|UCX|CUPY)_.*)$'

# Prints "NAME SLOTS" for each machine of a host file.
read_hosts() {
    local name rest found=''
    while read -r name rest || [[ -n $name ]]; do
        [[ -z $name || $name == \#* ]] && continue
        if [[ $rest =~ ^slots=([1-9][0-9]*)$ ]]; then
            found+="$name ${BASH_REMATCH[1]}"$'\n'
        elif [[ -z $rest ]]; then
            found+="$name 1"$'\n'
        else
            refuse "$1: \"$name $rest\" is not a machine; type a line as: gpu-a slots=4"
        fi
    done <"$1"
    [[ -n $found ]] || refuse "$1 names no machine; type a line as: gpu-a slots=4"
    printf '%s' "$found"
}

place_on() {
    local name slots variable list=''
    SLOTS=0
    while read -r name slots; do
        SLOTS=$((SLOTS + slots))
        list+=${list:+,}$name:$slots
    done <<<"$1"
    case $("${MPIRUN[0]}" --version 2>&1) in
        *"Open MPI"*)
            MPIRUN+=(--host "$list" --wdir "$PWD")
            while read -r variable; do
                [[ ! $variable =~ $HOSTS_VARIABLES ]] || MPIRUN+=(-x "$variable")
            done < <(compgen -e)
            ;;
        *) MPIRUN+=(-hosts "$list") ;;
    esac
}
