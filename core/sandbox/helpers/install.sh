# install.sh - installs an environment's packages into the tree that becomes its layer. Sourced once by the bash of
# a build sandbox (local/layer_build.c), which then calls `mr_install MANAGER PACKAGE...`, a manager at a time.
#
# There: /usr is the machine's own, read-only, with what apt brought on top of it; what is to be kept goes below $out,
# as it would stand at /. Nothing runs as root, nothing outside of the sandbox is changed. The network is the package
# registries, through the proxy variables that the sandbox set. Output is for people: its last lines are what a failed
# tool call shows.

out=/workspace/layer
export HOME=/workspace/home TMPDIR=/workspace/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin
mkdir -p "$out" "$HOME" "$TMPDIR"
cd "$TMPDIR" || exit 1
umask 022

# mr_need PROGRAM WHAT DEBIAN-PACKAGE
mr_need() {
  command -v "$1" > "$TMPDIR/found" && return 0
  echo "$2 is not installed on this machine. Add \"$3\" to the environment's apt packages, or install it on the machine."
  return 1
}

# --- apt: resolved and fetched by apt with a state of its own, unpacked without being installed

mr_apt_conf() {
  mkdir -p "$HOME/apt/lists/partial" "$HOME/apt/archives/partial" "$HOME/apt/log"
  cat > "$HOME/apt/conf" << END
Dir::State "$HOME/apt";
Dir::State::lists "$HOME/apt/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$HOME/apt";
Dir::Cache::archives "$HOME/apt/archives";
Dir::Log "$HOME/apt/log";
Debug::NoLocking "true";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Pipeline-Depth "0";
END
  export APT_CONFIG=$HOME/apt/conf
}

# Directories that are links into /usr on this machine are that in the layer, too.
mr_merged() {
  for d in bin sbin lib lib32 lib64 libx32; do
    [ -L "/$d" ] || continue
    case $1 in
    make) mkdir -p "$out/usr/$d" && ln -sfn "usr/$d" "$out/$d" ;;
    drop) rm -f "$out/$d"; rmdir "$out/usr/$d" 2> /dev/null ;;
    esac
  done
  return 0
}

mr_install_apt() {
  mr_need apt-get apt apt && mr_need dpkg-deb dpkg dpkg || return 1
  mr_apt_conf
  apt-get -q update 2>&1 || return 1
  apt-get -q install --download-only -- "$@" 2>&1 || return 1
  mr_merged make
  mkdir -p "$out/var/lib/moonrig/postinst"
  for deb in "$HOME"/apt/archives/*.deb; do
    [ -e "$deb" ] || continue
    name=$(dpkg-deb --field "$deb" Package) || return 1
    echo "unpacking $name"
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$out" --keep-directory-symlink --no-same-owner ||
      return 1
    mkdir "$TMPDIR/control" && dpkg-deb --control "$deb" "$TMPDIR/control" || return 1
    [ ! -e "$TMPDIR/control/postinst" ] || mv "$TMPDIR/control/postinst" "$out/var/lib/moonrig/postinst/$name"
    rm -rf "$TMPDIR/control" "$deb"
  done
  mr_merged drop
}

# The packages' own scripts are run for the alternatives that they set up (/usr/bin/java, libblas.so.3): what else
# they would change is the whole machine's, and is left out. They see their package installed by now.
mr_alternatives() {
  [ -d /var/lib/moonrig/postinst ] || return 0
  mkdir -p "$HOME/stubs" "$HOME/priority"
  for stub in adduser addgroup chgrp chmod chown chroot deb-systemd-helper deb-systemd-invoke dpkg-divert \
    dpkg-maintscript-helper dpkg-statoverride dpkg-trigger groupadd invoke-rc.d ldconfig mknod py3clean py3compile \
    systemctl update-rc.d useradd usermod ucf ucfr; do
    printf '#!/bin/sh\nexit 0\n' > "$HOME/stubs/$stub"
  done
  cat > "$HOME/stubs/update-alternatives" << 'END'
#!/bin/sh
out=/workspace/layer master=
put() { # LINK NAME PATH
  link=$1
  case $link in /bin/* | /sbin/* | /lib/*)
    top=${link#/}
    [ ! -L "/${top%%/*}" ] || link=/usr$link ;;
  esac
  [ -e "$3" ] || return 0
  mkdir -p "$out/etc/alternatives" "$out$(dirname "$link")"
  ln -sfn "$3" "$out/etc/alternatives/$2"
  [ -e "$link" ] || [ -L "$link" ] || ln -sfn "/etc/alternatives/$2" "$out$link"
}
while [ $# -gt 0 ]; do
  case $1 in
  --install)
    [ $# -ge 5 ] || exit 2
    master= had=$(cat "$HOME/priority/$3" 2> /dev/null)
    # What the machine has chosen stays; else the highest priority wins.
    if [ ! -L "/etc/alternatives/$3" ] && [ "$5" -gt "${had:--1}" ]; then
      master=yes
      echo "$5" > "$HOME/priority/$3"
      put "$2" "$3" "$4"
    fi
    shift 5 ;;
  --slave | --follower)
    [ $# -ge 4 ] || exit 2
    [ -z "$master" ] || put "$2" "$3" "$4"
    shift 4 ;;
  --*) shift ;;
  *) exit 0 ;;
  esac
done
END
  chmod 755 "$HOME"/stubs/*
  for script in /var/lib/moonrig/postinst/*; do
    [ -e "$script" ] || continue
    cp "$script" "$TMPDIR/postinst" && chmod 755 "$TMPDIR/postinst"
    (export PATH="$HOME/stubs:$PATH" DPKG_MAINTSCRIPT_NAME=postinst DPKG_MAINTSCRIPT_PACKAGE="${script##*/}"
      exec timeout 60 "$TMPDIR/postinst" configure '' < /dev/null > "$TMPDIR/postinst.log" 2>&1) ||
      echo "the script of ${script##*/} did not end well: $(tail -n 1 "$TMPDIR/postinst.log")"
  done
  return 0
}

# --- the others: below /usr/local, each by its own means

mr_install_cargo() {
  mr_need cargo cargo cargo || return 1
  for p in "$@"; do
    CARGO_HOME=$HOME/cargo cargo install --color never --root "$out/usr/local" -- "$p" 2>&1 || return 1
  done
  rm -f "$out/usr/local/.crates.toml" "$out/usr/local/.crates2.json"
}

mr_install_gem() {
  mr_need gem gem ruby || return 1
  dir=$(gem env gemdir) || return 1
  case $dir in /usr/* | /var/lib/*) ;; *) dir=/var/lib/gems ;; esac
  mkdir -p "$out/usr/local/bin" "$out$dir"
  for p in "$@"; do
    gem install --no-document --no-user-install --install-dir "$out$dir" --bindir "$out/usr/local/bin" "$p" 2>&1 ||
      return 1
  done
}

mr_install_go() {
  mr_need go go golang-go || return 1
  export GOPATH=$HOME/go GOCACHE=$HOME/go-build GOBIN=$out/usr/local/bin GOFLAGS=-modcacherw
  mkdir -p "$GOBIN"
  for p in "$@"; do
    case $p in *@*) ;; *) p=$p@latest ;; esac
    go install "$p" 2>&1 || return 1
  done
}

mr_install_npm() {
  mr_need npm npm npm || return 1
  export npm_config_cache=$HOME/npm npm_config_fund=false npm_config_audit=false npm_config_update_notifier=false
  for p in "$@"; do
    npm install --global --prefix "$out/usr/local" -- "$p" 2>&1 || return 1
  done
}

# All at once, so that their versions fit together; and whatever the machine has of them, so that a layer does not
# change with it.
mr_install_pip() {
  mr_need python3 python3 python3-pip || return 1
  python3 -m pip --version > "$TMPDIR/found" 2>&1 || {
    echo 'pip is not installed on this machine. Add "python3-pip" to the environment'\''s apt packages, or install it on the machine.'
    return 1
  }
  export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off \
    PIP_ROOT_USER_ACTION=ignore PIP_NO_WARN_SCRIPT_LOCATION=1
  python3 -m pip install --root "$out" --ignore-installed --no-cache-dir -- "$@" 2>&1
}

mr_install() {
  mr_manager=$1
  shift
  "mr_install_$mr_manager" "$@"
}
