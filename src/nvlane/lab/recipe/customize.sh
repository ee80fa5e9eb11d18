#!/bin/sh
# Runs at the end of mmdebstrap, with the new root in $1 and the recipe in $2 (both seen from outside the root).
# Leaves in the root's own /lab-out: root.img (the file system, with room for a table), vmlinuz,
# release, packages and python.tar. LAB_FS_MIB, LAB_FS_OFFSET (bytes) and LAB_FS_UUID come from the environment.
# It runs as root or as the root of a user namespace; mke2fs sees the right owners in both cases.
set -eu
root=$1 recipe=$2

# The kernel is unpacked, not installed: its post-installation script would make an initramfs that nobody boots.
chroot "$root" sh -euc '
    cd /tmp
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: \(linux-image-[0-9].*\)/\1/p")
    apt-get download -qq -o APT::Sandbox::User=root "$kernel"
    dpkg -x "$kernel"_*.deb /
    rm -f "$kernel"_*.deb'

release=$(cd "$root/usr/lib/modules" && echo *)
modules=$root/usr/lib/modules/$release
# Unpacked modules load several times as fast when every instruction is emulated.
find "$modules" -name '*.ko.xz' -print0 | xargs -0 -r -P2 -n64 xz -d
rm -rf "$modules/kernel/sound" "$modules/kernel/net/wireless" "$modules/kernel/drivers/gpu" \
    "$modules/kernel/drivers/infiniband/hw" "$modules/kernel/drivers/net/ethernet"
chroot "$root" depmod "$release"

install -m 0755 "$recipe/init.sh" "$root/usr/sbin/nvlane-lab-init"
install -m 0644 "$recipe/profile.sh" "$root/etc/profile.d/nvlane.sh"
install -m 0755 "$recipe/poweroff.sh" "$root/usr/local/sbin/poweroff"
ln -s poweroff "$root/usr/local/sbin/reboot"
mkdir -p "$root/nvlane" "$root/etc/ndctl/keys" "$root/srv/mounted" "$root/srv/sibling" "$root/root/.ssh" "$root/etc/dropbear"
chmod 0700 "$root/root/.ssh"
echo nvlane-lab > "$root/etc/hostname"
printf '127.0.0.1 localhost nvlane-lab\n' > "$root/etc/hosts"
printf '#!/bin/sh\nexec python3 -m nvlane "$@"\n' > "$root/usr/local/bin/nvlane"
chmod 0755 "$root/usr/local/bin/nvlane"

# What apt and dpkg need to install more is of no use in a room that never installs anything.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/usr/share/zoneinfo \
    "$root"/usr/share/doc "$root"/usr/share/i18n "$root"/usr/lib/x86_64-linux-gnu/gconv

out=$root/lab-out
mkdir "$out"
cp "$root/boot/vmlinuz-$release" "$out/vmlinuz"
echo "$release" > "$out/release"
chroot "$root" dpkg-query -W > "$out/packages"

# The root's own Python, so that byte code can be compiled outside, at full speed, for the Python inside.
version=$(cd "$root/usr/bin" && echo python3.[0-9]*)
libraries=$(chroot "$root" ldd "/usr/bin/$version" | grep -o '/[^ ]*' | sed 's:^/::')
# shellcheck disable=SC2086  # one word each
(cd "$root" && tar -chf "$out/python.tar" --exclude=sitecustomize.py --exclude=__pycache__ \
    "usr/bin/$version" "usr/lib/$version" $libraries)

# Hard links, not copies, into the tree that becomes the image: it leaves out the mounts and the output itself.
mkdir "$root/lab-tree"
for entry in "$root"/*; do
    case ${entry##*/} in
    dev | proc | sys | run | tmp | lab-out | lab-tree | lab-recipe) ;;
    *) cp -al "$entry" "$root/lab-tree/" ;;
    esac
done
for entry in dev proc sys run tmp; do mkdir "$root/lab-tree/$entry"; done
chmod 1777 "$root/lab-tree/tmp"
# One MiB before the file system and one behind it are for the partition table.
truncate -s $((LAB_FS_MIB + 2))M "$out/root.img"
mke2fs -q -F -t ext4 -L nvlane-lab -m 0 -O ^has_journal,^metadata_csum,^resize_inode -b 4096 -N 65536 \
    -E "offset=$LAB_FS_OFFSET,lazy_itable_init=1,hash_seed=6e766c61-6e65-4c61-8b00-000000000001" \
    -U "$LAB_FS_UUID" -d "$root/lab-tree" "$out/root.img" "${LAB_FS_MIB}M"
rm -rf "$root/lab-tree"
