# Set-up that `./demo` and `./test` share; sourced by both, never run by itself.
#
# Uses what is there. As root it takes what is missing from the distribution; as anybody else it names the command that
# would install it and stops. Nothing is installed outside of apt, cargo and the folders below.

REFLOAT_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/refloat
TOOLS=$REFLOAT_CACHE/tools
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REFLOAT_CACHE/target}
export PATH=$PATH:$HOME/.cargo/bin:$TOOLS/bin

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

# from_distribution PACKAGE...: installs Debian packages, or says which are missing.
from_distribution() {
  if [ "$(id -u)" -ne 0 ]; then
    die "missing: $*. Install it with: sudo apt-get install $*"
  fi
  command -v apt-get >/dev/null || die "missing: $*, and this is no Debian or Ubuntu to take it from"
  say "installing $* from the distribution"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "$@" >/dev/null
}

need_rust() {
  command -v cargo >/dev/null || die "missing: a Rust toolchain. Get one from https://rustup.rs, then run this again"
  # ring and zstd compile a little C.
  command -v cc >/dev/null || from_distribution build-essential
}

# need_tool NAME VERSION: a cargo subcommand, built once and kept in the cache.
need_tool() {
  "cargo-$1" "$1" --version >/dev/null 2>&1 && return
  say "building cargo-$1 $2 (once; kept in $TOOLS)"
  # Unoptimised: it runs for seconds and builds in a third of the time.
  CARGO_TARGET_DIR=$REFLOAT_CACHE/tools-target CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --root "$TOOLS" "cargo-$1@$2" </dev/null
  rm -rf "$REFLOAT_CACHE/tools-target"
}

# need_sshd: an ssh server's program, for a server of the tests' own. The distribution's package is unpacked, not installed: no
# server of the machine's is started or enabled by it.
need_sshd() {
  command -v ssh >/dev/null && command -v ssh-keygen >/dev/null || from_distribution openssh-client
  # It gives up root's rights to this user until somebody has logged in.
  if [ "$(id -u)" -eq 0 ] && ! getent passwd sshd >/dev/null; then
    say "adding the system user sshd, as the package openssh-server would"
    useradd --system --no-create-home --home-dir /run/sshd --shell /usr/sbin/nologin sshd
  fi
  command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] && return
  local folder=$TOOLS/openssh
  say "unpacking sshd from the distribution's openssh-server (kept in $folder)"
  rm -rf "$folder" && mkdir -p "$folder" "$TOOLS/bin"
  [ "$(id -u)" -ne 0 ] || apt-get update -qq
  (cd "$folder" && apt-get download -qq openssh-server 2>/dev/null && dpkg -x openssh-server_*.deb .) ||
    die "openssh-server cannot be taken from the distribution"
  ! ldd "$folder/usr/sbin/sshd" | grep -q 'not found' || from_distribution libwrap0 libpam0g
  ln -sf "$folder/usr/sbin/sshd" "$TOOLS/bin/sshd"
}

need_engine() {
  docker info >/dev/null 2>&1 && return
  if ! command -v dockerd >/dev/null; then
    from_distribution docker.io iptables ca-certificates
  fi
  # Newer distributions have the client in a package of its own.
  command -v docker >/dev/null || from_distribution docker-cli
  docker info >/dev/null 2>&1 && return
  [ "$(id -u)" -eq 0 ] || die "the Docker engine cannot be reached as $(id -un). Run this as root, or join the group docker"
  say "starting the Docker engine"
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    setsid nohup dockerd >/var/log/dockerd.log 2>&1 </dev/null &
  fi
  for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  die "the Docker engine did not answer within 60 s; its log is in the journal or in /var/log/dockerd.log"
}

# need_images IMAGE...: pulls what is absent.
need_images() {
  local image
  for image in "$@"; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    say "pulling $image"
    docker pull --quiet "$image" >/dev/null
  done
}
