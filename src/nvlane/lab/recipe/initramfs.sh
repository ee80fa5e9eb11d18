#!/bin/sh
# PID 1 of a lab whose kernel has its drivers as modules: finds the root and that kernel's own files, and goes on there.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

while read -r module; do
    insmod "/modules/$module.ko" || echo "nvlane-lab: $module was not loaded" >/dev/console
done </modules/order

# The block device with the serial $1, by the file of that serial ($2) below its directory in sysfs.
find_disk() {
    tries=300
    while [ $((tries = tries - 1)) -gt 0 ]; do
        for disk in /sys/block/*; do
            # One path of a multipath namespace has no node of its own; virtio's serial has no end of line.
            [ -b "/dev/${disk##*/}" ] && [ -r "$disk/$2" ] || continue
            read -r serial <"$disk/$2"
            [ "$serial" = "$1" ] && echo "/dev/${disk##*/}" && return
        done
        sleep 0.1
    done
    echo "nvlane-lab: no disk with the serial $1" >/dev/console
}
mount -t ext4 -o ro,noatime "$(find_disk LABROOT device/serial)p1" /root
mount -t ext4 -o ro,noatime "$(find_disk LABKERNEL serial)" /kernel
mount --bind /kernel/modules /root/usr/lib/modules
mount --bind /kernel/boot /root/boot
umount /proc /sys /dev
exec switch_root /root /usr/sbin/nvlane-lab-init
