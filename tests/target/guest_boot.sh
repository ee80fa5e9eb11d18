# The second half of the test guest's start, read by PID 1 of the lab's root.
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
ln -sf /proc/self/fd /dev/fd
modprobe -a virtio_console virtio_scsi sd_mod xfs
python3 -S /nvlane/guest_agent.py >/dev/console 2>&1 &
