# shellcheck shell=bash
# Host files: a machine a line and its number of ranks, as in launch/hosts.example.
#
#   source launch/hosts.sh             after scripts/setup.sh, which brings say and refuse
#   machines=$(read_hosts FILE)        "NAME SLOTS" a line
#   place_on "$machines"               makes MPIRUN start its ranks there, machine by machine, and counts them in SLOTS

# Names of variables that ssh does not carry to other machines, and ranks there should find as here.
HOSTS_VARIABLES='^(PATH|LD_LIBRARY_PATH|XDG_CACHE_HOME|MPI4PY_LIBMPI|(OMP|OPENBLAS|MKL)_NUM_THREADS|OPENBLAS_CORETYPE|(DDPGD|NCCL|UCX|CUPY)_.*)$'

# A name that ssh and mpirun take for a name: not for a flag, a list or a port.
HOSTS_NAME='^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$'

# Prints "NAME SLOTS" for each machine of a host file.
read_hosts() {
    local line name rest found='' wanted="type a line as: gpu-a slots=4"
    [[ -r $1 ]] || refuse "$1 cannot be read: change its permissions"
    while read -r line || [[ -n $line ]]; do
        line=${line%$'\r'} # of a file written on Windows
        read -r name rest <<<"${line%%#*}" || true
        [[ -n $name ]] || continue
        [[ $name =~ $HOSTS_NAME ]] || refuse "$1: \"${name:0:100}\" is not the name of a machine; $wanted"
        if [[ $rest =~ ^slots=([1-9][0-9]{0,5})$ ]]; then
            found+="$name ${BASH_REMATCH[1]}"$'\n'
        elif [[ -z $rest ]]; then
            found+="$name 1"$'\n'
        else
            refuse "$1: \"${name:0:100} ${rest:0:100}\" is not a machine; $wanted"
        fi
    done <"$1"
    [[ -n $found ]] || refuse "$1 names no machine; $wanted"
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
