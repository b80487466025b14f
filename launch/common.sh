# shellcheck shell=bash disable=SC2154 # `options` and what it names are the launcher's.
# What the launchers share; sourced by them.

export LC_ALL=C # In which [a-z] are small letters alone, on every machine.
dry_run=
arguments=()

fail() {
  echo "$(basename "$0"): $1 See launch/README.md." >&2
  exit 2
}

# Options of the launcher come first, --name=value each; the program's follow a "--". Sets a variable for every option
# that the launcher names in `options`; underscores keep them from this function's own.
parse() {
  local _option _name
  while [[ $# -gt 0 ]]; do
    _option=$1
    shift
    if [[ $_option == -- ]]; then
      arguments=("$@")
      break
    fi
    _name=${_option%%=*}
    _name=${_name#--}
    if [[ $_option == --help ]]; then
      sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0" # What stands at the launcher's top.
      exit
    elif [[ $_option == --dry-run ]]; then
      dry_run=yes
    elif [[ $_option == --*=* && " $options " == *" $_name "* ]]; then
      printf -v "$_name" %s "${_option#*=}"
    else
      fail "unknown option $_option: expected --dry-run, --${options// /=..., --}=..., then -- and the program's own."
    fi
  done
}

# Fails where the program's options lack one that it needs, such as --config=configs/nce.py.
require() {
  [[ " ${arguments[*]-}" == *" ${1%%=*}="* ]] || fail "after -- the program's options are missing: $1 and more."
}

is_number() {
  [[ $1 =~ ^[1-9][0-9]*$ ]]
}

# A command as it could be typed again.
show() {
  local quoted
  printf -v quoted '%q ' "$@"
  echo "${quoted% }"
}

# Runs a command, or only shows it.
run() {
  if [[ $dry_run ]]; then show "$@"; else "$@"; fi
}
