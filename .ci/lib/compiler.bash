# To be sourced by the checks in the parent directory that compile for other systems or processors. Sets $RUSTC.
#
# rustup has standard libraries for other targets, but needs its own server. Debian packages a compiler, its library for
# Debian's architectures, and the library's source. The packages are unpacked, not installed, so that no other step uses
# this compiler.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

systems=$PWD/target/systems
root=$systems/root debs=$systems/debs
mkdir -p "$debs/partial"

export RUSTC=$root/usr/bin/rustc LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu CARGO_TARGET_DIR=$systems/build

# unpack PACKAGE...: unpacks packages and what they depend on.
unpack() {
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends --download-only -o Dir::Cache::archives="$debs" "$@"
    unpack_all
}

# unpack_library ARCHITECTURE: unpacks the compiler's own library for another of Debian's architectures, without what it
# depends on. The machine's lists of packages stay without this architecture.
unpack_library() {
    local version options=(-o APT::Architectures::=amd64 -o APT::Architectures::="$1" -o Dir::State::lists="$systems/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    version=$(dpkg-deb --field "$debs"/rustc-web_*.deb Version)
    mkdir -p "$systems/lists/partial"
    apt-get "${options[@]}" update -qq
    (cd "$debs" && apt-get "${options[@]}" download -qq "libstd-rust-web-dev:$1=$version")
    unpack_all
}

unpack_all() {
    local package unpacked
    for package in "$debs"/*.deb; do
        unpacked=$root/unpacked/$(basename "$package")
        [ -e "$unpacked" ] || { dpkg -x "$package" "$root" && mkdir -p "$root/unpacked" && touch "$unpacked"; }
    done
}
