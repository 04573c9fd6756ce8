# What the scripts of this directory share: where the cache is, and how something is made in it
# once.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home_cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}
cache=${NODEAGENT_CACHE:-$home_cache/nodeagent}

say() { echo "${0##*/}: $*" >&2; }

# fail STATUS MESSAGE...: 64 for a wrong call, 69 for something that this machine lacks, 70 for the
# rest.
fail() {
  local status=$1
  shift
  say "$*"
  exit "$status"
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 64
}

# digest: a short name for what is read from standard input.
digest() { sha256sum | cut -c1-12; }

# once TARGET COMMAND...: prints TARGET, a directory; where it does not exist yet, COMMAND is run
# with a directory to fill as its last argument, and that directory becomes TARGET.
#
# Readers look for TARGET alone, and it appears whole, by one rename. What an interrupted call
# leaves behind is a dotted directory beside it, which the next call removes: it holds the lock, so
# nobody else can be filling one. A second caller waits for the first one's result.
once() {
  local target=$1 staging lock
  shift
  if [[ ! -d $target ]]; then
    mkdir -p "$(dirname "$target")"
    lock=$(dirname "$target")/.$(basename "${target%-*}").lock
    staging=${lock%.lock}.staging
    exec 9> "$lock"
    flock 9
    if [[ ! -d $target ]]; then
      local began=$SECONDS
      say "making $target"
      rm -rf "$staging"
      mkdir "$staging"
      # The lock is not handed down: a daemon that a build leaves behind would keep it for ever.
      "$@" "$staging" 9>&-
      mv -T "$staging" "$target"
      say "made $target in $((SECONDS - began)) s"
    fi
    exec 9>&-
  fi
  echo "$target"
}
