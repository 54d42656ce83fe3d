# shellcheck shell=bash
# Host files: a machine a line and its number of ranks, as in launch/hosts.example.
#
#   source launch/hosts.sh             after scripts/setup.sh, which brings say and refuse
#   machines=$(read_hosts FILE)        "NAME SLOTS" a line
#   place_on "$machines"               makes MPIRUN start its ranks there, machine by machine, and counts them in SLOTS

# What ssh does not carry to other machines, and ranks there should find as here.
HOSTS_VARIABLES=(DDPGD_DATA DDPGD_CACHE OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS OPENBLAS_CORETYPE)

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
            MPIRUN+=(--host "$list")
            for variable in "${HOSTS_VARIABLES[@]}"; do
                [[ -z ${!variable+set} ]] || MPIRUN+=(-x "$variable")
            done
            ;;
        *) MPIRUN+=(-hosts "$list") ;;
    esac
}
