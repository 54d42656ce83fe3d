# shellcheck shell=bash
# Virtual environments: found, made, updated, never cleared. A part of scripts/setup.sh.
#
# An environment is finished when it holds a stamp: setup.stamp, or setup.stamp.test with the tests' tools. A stamp's first line
# says for which mpirun, which CUDA and which folder it was made, the rest is pyproject.toml.

# use_environment ORIGIN EXTRAS TEST: sets VENV to a finished environment; makes or updates one if there is none. TEST: "" or ",test".
use_environment() {
    local origin=$1 extras=$2 test=$3 wanted locked=''
    wanted=$origin$'\n'$(<"$ROOT/pyproject.toml")
    if ! find_environment "$wanted" "$test"; then
        lock_environments
        # Of two first starts, the second has waited, and finds what the first has made.
        if ! find_environment "$wanted" "$test"; then
            make_environment "$origin" "$extras$test"
            write_stamp "$wanted" "$test"
        fi
        { exec 9>&-; } 2>/dev/null
    fi
    link_environment
}

# find_environment TEXT TEST: sets VENV to the environment whose stamp is TEXT, or fails. TEXT of one line: of any pyproject.toml.
find_environment() {
    local folder stamp text stamps=(setup.stamp.test setup.stamp)
    [[ -z $2 ]] || stamps=(setup.stamp.test)
    for folder in "$ROOT/.venv" "$ENVIRONMENTS"/*; do
        folder=$(cd "$folder" 2>/dev/null && pwd -P) || continue
        [[ -x $folder/bin/python ]] || continue
        for stamp in "${stamps[@]}"; do
            text=$(cat "$folder/$stamp" 2>/dev/null) || continue
            if [[ $text == "$1" || ${text%%$'\n'*} == "$1" ]]; then
                VENV=$folder
                return
            fi
        done
    done
    return 1
}

# One start at a time makes environments. On a file system without locks, each that comes makes one of its own.
lock_environments() {
    local code=0
    mkdir -p "$ENVIRONMENTS" 2>/dev/null || true
    [[ -w $ENVIRONMENTS ]] ||
        refuse "cannot write $ENVIRONMENTS, where the environment goes: let the owner of $ROOT start it once, or take a copy of your own"
    command -v flock >/dev/null && { exec 9>"$ENVIRONMENTS/lock"; } 2>/dev/null || return 0
    flock -n 9 2>/dev/null || code=$?
    if ((code == 1)); then
        say "waiting for another start, which makes the environment"
        code=0
        flock 9 2>/dev/null || code=$?
    fi
    ((code != 0)) || locked=yes
}

# make_environment ORIGIN EXTRAS: sets VENV to a new environment, or to one of that origin, which it updates.
make_environment() {
    local python started=$SECONDS
    remove_unfinished
    if find_environment "$1" ''; then
        say "updating $VENV for ${1% in *} ..."
        install_package "$2"
        return
    fi
    python=$(find_python) ||
        refuse "no Python 3.11 or newer on PATH: install one, e.g. apt install python3 python3-venv"
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
        refuse "$python cannot make virtual environments: apt install python3-venv"
    new_folder
    say "making $VENV with $("$python" --version) and ${1% in *}; once, about half a minute ..."
    if ! "$python" -I -m venv "$VENV" >&2; then
        rm -rf "$VENV"
        refuse "$python -m venv $VENV fails (above)"
    fi
    install_package "$2" new
    say "made in $((SECONDS - started)) s"
}

# Sets VENV to a folder that nobody else has.
new_folder() {
    local number
    for ((number = 1; number < 1000; number++)); do
        VENV=$ENVIRONMENTS/$number
        if [[ ! -e $VENV ]] && mkdir "$VENV" 2>/dev/null; then
            return
        fi
        [[ -e $VENV ]] || break
    done
    refuse "cannot make $VENV: is the disk full?"
}

# install_package EXTRAS [new]: a new environment that cannot be finished is removed, an older one stays what it was.
install_package() {
    local log=$ENVIRONMENTS/setup.log
    # Settings that would install elsewhere than into the environment.
    if ! env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u FORCE_COLOR PIP_USER=0 NO_COLOR=1 "$VENV/bin/python" -I -m pip install \
        --disable-pip-version-check --prefer-binary --editable "${ROOT}[$1]" >"$log" 2>&1; then
        tail -n 12 "$log" >&2 || true
        [[ -z ${2-} ]] || rm -rf "$VENV"
        refuse "pip could not install the package: mend what it says above (network, proxy, disk?) and start again; all it said: $log"
    fi
}

# write_stamp TEXT TEST: the environment is finished.
write_stamp() {
    local new=setup.stamp old=setup.stamp.test
    [[ -z $2 ]] || new=setup.stamp.test old=setup.stamp
    printf '%s\n' "$1" >"$VENV/$new.$$"
    mv "$VENV/$new.$$" "$VENV/$new"
    rm -f "$VENV/$old" "$VENV/setup.checked"
}

# Removes what starts left that were killed half-way. Without a lock, another start may still be at work there.
remove_unfinished() {
    local folder
    [[ -n $locked ]] || return 0
    for folder in "$ENVIRONMENTS"/[0-9]*; do
        if [[ -d $folder && ! -e $folder/setup.stamp && ! -e $folder/setup.stamp.test ]]; then
            rm -rf "$folder"
        fi
    done
}

# Lets .venv be the environment last used, if it is a link or nothing yet.
link_environment() {
    if [[ $VENV == "$ENVIRONMENTS"/* && ! $VENV -ef $ROOT/.venv ]]; then
        if [[ -L $ROOT/.venv || ! -e $ROOT/.venv ]]; then
            ln -sfn ".venvs/${VENV##*/}" "$ROOT/.venv" 2>/dev/null || true
        else
            say "$ROOT/.venv was made for something else; here it is: source $VENV/bin/activate"
        fi
    fi
}
