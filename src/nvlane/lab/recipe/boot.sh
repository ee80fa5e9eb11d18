# The second half of the lab's start, read by PID 1. It arrives with every `lab up`, so it can change without a new image.
say() { echo "nvlane-lab: $*" >/dev/console; }

mkdir -p /dev/pts /dev/shm /run/lock /run/lab/jobs /var/log /var/cache
mount -t devpts -o mode=0620,gid=5,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
chmod 1777 /nvlane/tmp && mount --bind /nvlane/tmp /var/tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
echo nvlane-lab >/proc/sys/kernel/hostname

case $(grep -m1 '^flags' /proc/cpuinfo) in
*" svm "*) kvm=kvm_amd ;;
*" vmx "*) kvm=kvm_intel ;;
*) kvm= ;;
esac
# There is no udev: what it would load for this machine's hardware is loaded here.
# shellcheck disable=SC2086  # no word when there is no nested KVM
modprobe -a nfit nd_pmem dax_pmem device_dax $kvm 2>/run/lab/modprobe.log &
drivers=$!

mount -o ro,noatime /dev/vdb /nvlane/site
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2

# By serial, never by number: the kernel probes controllers in parallel.
serial_mount() {
    for disk in /sys/block/nvme*n1; do
        case ${disk##*/} in *c*) continue ;; esac # one path of a multipath namespace has no node of its own
        read -r serial <"$disk/device/serial" || continue
        [ "$serial" = "$1" ] && mount -t ext4 -o noatime "/dev/${disk##*/}" "$2" && return
    done
    say "no drive with the serial $1 could be mounted at $2"
}
serial_mount LABMOUNT /srv/mounted
serial_mount LABSIBB /srv/sibling

mkdir -p /run/lab /root/.ssh
cp /nvlane/keys/authorized_keys /root/.ssh/authorized_keys
chmod 0700 /root /root/.ssh
chmod 0600 /root/.ssh/authorized_keys
wait $drivers
. /etc/profile.d/nvlane.sh
export HOME=/root USER=root SHELL=/bin/bash
cd /root
# Without -F it goes to the background only when it listens, so "ready" is true.
dropbear -e -s -r /nvlane/keys/host_key -P /run/dropbear.pid -p 22 -W 262144 -K 0 -I 0
read -r up _ </proc/uptime
say "ready after $up s"
