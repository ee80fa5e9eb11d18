# The environment of every command in the lab; sourced by its PID 1 and by login shells.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PYTHONPATH=/nvlane/src:/nvlane/site
# There is no udev here, so device mapper must make its own nodes.
export DM_DISABLE_UDEV=1
export LC_ALL=C.UTF-8
# What runs here knows by this that figures of speed mean nothing.
export NVLANE_LAB=1
