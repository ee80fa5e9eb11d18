#!/bin/sh
# PID 1 of the lab. What it does first is fixed in the image; the rest is boot.sh, which comes with every start.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mountpoint -q /dev || mount -t devtmpfs -o mode=0755 dev /dev
mount -t tmpfs -o mode=0755 run /run
mount -o remount,rw,noatime /
modprobe -a virtio_blk virtio_net
mount -o noatime /dev/vda /nvlane
. /nvlane/boot.sh

# dash reaps every orphan while it waits for its one child.
while :; do
    sleep infinity &
    wait
done
