# shellcheck shell=bash disable=SC2154 # `options` and what it names are the launcher's.
# What the launchers share; sourced by them.

export LC_ALL=C # In which [a-z] are small letters alone.
dry_run=
arguments=()

fail() {
  echo "$(basename "$0"): $1 See launch/README.md." >&2
  exit 2
}

# Options of the launcher come first, --name=value each; the program's follow a "--". Sets a variable for every option
# that the launcher names in `options`.
parse() {
  local option name
  while [[ $# -gt 0 ]]; do
    option=$1
    shift
    if [[ $option == -- ]]; then
      arguments=("$@")
      break
    fi
    name=${option%%=*}
    name=${name#--}
    if [[ $option == --dry-run ]]; then
      dry_run=yes
    elif [[ $option == --*=* && " $options " == *" $name "* ]]; then
      printf -v "$name" %s "${option#*=}"
    else
      fail "unknown option $option: expected --dry-run, --${options// /=..., --}=..., then -- and the program's own."
    fi
  done
  [[ " ${arguments[*]-}" == *" --config="* ]] || fail "after -- the program's options are missing: --config=configs/nce.py and more."
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
