#!/bin/sh
# poweroff and reboot of the lab: PID 1 there is a shell script that takes no orders.
sync
exec busybox "${0##*/}" -f
