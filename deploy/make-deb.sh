#!/bin/bash
# make-deb.sh [-b BUILD] [-v VERSION] OUT: Motte as a Debian package, OUT/motte_VERSION_amd64.deb.
#
#   -b BUILD     a finished build (build/release, which is built if it is not there)
#   -v VERSION   of the package, as Debian writes it (the project's)
#
# The same build gives the same bytes; SOURCE_DATE_EPOCH is the time of the files (1 January 2026).
set -euo pipefail
umask 022

top=$(cd "$(dirname "$0")/.." && pwd)
die() {
    echo "make-deb.sh: $*" >&2
    exit 1
}
build=$top/build/release version=
while getopts b:v: option; do
    case $option in
    b) build=$OPTARG ;;
    v) version=$OPTARG ;;
    *) die "usage: make-deb.sh [-b BUILD] [-v VERSION] OUT" ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || die "usage: make-deb.sh [-b BUILD] [-v VERSION] OUT"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH-1767225600}
if [ ! -e "$build/CMakeCache.txt" ]; then
    (cd "$top" && cmake --preset release -B "$build" && cmake --build "$build") >&2
fi
[ -n "$version" ] || version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
[ -n "$version" ] || die "$build is no build of Motte"
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/DEBIAN"

# Files at a package's places: /usr in the place of /usr/local, the example of the configuration as
# the configuration.
DESTDIR=$root cmake --install "$build" --prefix /usr --strip >/dev/null
mv "$root/etc/motte/motted.conf.example" "$root/etc/motte/motted.conf"
sed -e 's,@CMAKE_INSTALL_FULL_BINDIR@,/usr/bin,' -e 's,@MOTTE_CONFIG_DIR@,/etc/motte,' \
    -e 's,@CMAKE_INSTALL_FULL_DOCDIR@,/usr/share/doc/motte,' \
    "$top/deploy/systemd/motted.service.in" >"$root/usr/lib/systemd/system/motted.service"
! grep '@' "$root/usr/lib/systemd/system/motted.service" || die "a name in the unit has no value"
install -D -m 0644 "$top/deploy/debian/motte.sysusers" "$root/usr/lib/sysusers.d/motte.conf"
gzip -9n "$root/usr/share/man/man1/motte.1"
mv "$root/usr/share/doc/motte/LICENSE" "$root/usr/share/doc/motte/copyright"
printf 'motte (%s) unstable; urgency=medium\n\n  * Made by deploy/make-deb.sh; see the history of the project.\n\n -- The Motte authors <motte@localhost>  %s\n' \
    "$version" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$root/usr/share/doc/motte/changelog.gz"

# What the programs are linked with, as Debian's own tool finds it.
mkdir -p "$work/debian"
printf 'Source: motte\n\nPackage: motte\nArchitecture: amd64\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/bin/motte root/usr/bin/motted \
    root/usr/libexec/motte/motte-front root/usr/libexec/motte/motte-admin 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || die "dpkg-shlibdeps found no library"

cat >"$root/DEBIAN/control" <<END
Package: motte
Version: $version
Architecture: amd64
Maintainer: The Motte authors <motte@localhost>
Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f 1)
Depends: $depends, kmod, systemd | systemd-standalone-sysusers
Recommends: squashfs-tools, e2fsprogs
Suggests: qemu-system-x86, mmdebstrap, prometheus
Section: admin
Priority: optional
Description: one microVM per agent
 motted creates microVMs (Firecracker on KVM, or QEMU's emulation to try it) over
 HTTP, runs commands in them over vsock, and destroys them without a trace. It is
 made for untrusted, machine-written code. VMs outlive the service: an upgrade of
 this package restarts it, and they run on.
END
echo /etc/motte/motted.conf >"$root/DEBIAN/conffiles"
install -m 0755 -t "$root/DEBIAN" "$top"/deploy/debian/{postinst,prerm,postrm}
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod 0644 "$root"/DEBIAN/{control,conffiles,md5sums}
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/motte_${version}_amd64.deb"
