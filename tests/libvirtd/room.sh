#!/bin/sh
# Builds a room in the mount name space that it is started in: room.sh ROOT KERNEL CHECKOUT PLACE INIT
# The root stays as it is; what changes is in memory and ends with the name space.
set -eu
root=$1 kernel=$2 checkout=$3 place=$4
mount --make-rprivate /
mount --bind "$root" "$place"
mount -o remount,bind,ro "$place"
mount -t tmpfs -o size=64m none "$place/mnt"
cp -a "$place/etc/." "$place/mnt"
mount --move "$place/mnt" "$place/etc"
for name in var run tmp root; do mount -t tmpfs -o mode=0755 none "$place/$name"; done
chmod 1777 "$place/tmp"
# Without /dev/kvm: it may be there and of no use, and libvirt would ask QEMU anew at every call because of that.
mount -t tmpfs -o mode=0755,size=64m none "$place/dev"
for name in null zero full random urandom tty; do
    : > "$place/dev/$name"
    mount --bind "/dev/$name" "$place/dev/$name"
done
mkdir "$place/dev/pts" "$place/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 none "$place/dev/pts"
ln -s pts/ptmx "$place/dev/ptmx"
for name in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${name%%:*}" "$place/dev/${name#*:}"; done
ln -s /proc/self/fd "$place/dev/fd"
chmod 1777 "$place/dev/shm"
mount --rbind -o ro /sys "$place/sys"
mount -t proc proc "$place/proc"
mount --bind "$checkout" "$place/nvlane"
mount -o remount,bind,ro "$place/nvlane"
mount --bind "$kernel/boot" "$place/boot"
mount --bind "$kernel/usr/lib/modules" "$place/usr/lib/modules"
ln -s ../run "$place/var/run"
mkdir -p "$place/var/lib/libvirt/images" "$place/var/log/libvirt/qemu" "$place/var/cache/libvirt" "$place/var/tmp" "$place/etc/libvirt"
grep -q libvirt-qemu "$place/etc/passwd" || {
    echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >> "$place/etc/passwd"
    echo 'libvirt-qemu:x:64055:' >> "$place/etc/group"
}
# No control groups and no name spaces of libvirt's own: the room itself is what nothing gets out of.
cat > "$place/etc/libvirt/qemu.conf" <<'CONF'
user = "libvirt-qemu"
group = "libvirt-qemu"
cgroup_controllers = []
namespaces = []
security_driver = "none"
CONF
cat > "$place/etc/libvirt/libvirtd.conf" <<'CONF'
auth_unix_rw = "none"
CONF
exec chroot "$place" /usr/bin/python3 -B /nvlane/tests/libvirtd/room_init.py
