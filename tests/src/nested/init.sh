#!/bin/busybox sh
# The first process of the nested machine: loads KVM, runs the command, reports its exit status.
# The serial ports: ttyS0 the console, ttyS1 standard output, ttyS2 standard error, ttyS3 the status.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin
# The root is a tmpfs already, so /tmp and /run need none of their own.
mkdir -p /dev /proc /sys /tmp /run
chmod 1777 /tmp
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir /dev/shm
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
for port in 1 2 3; do stty -F "/dev/ttyS$port" raw -echo; done
for module in /nested/modules/*; do insmod "$module" || echo "cannot load $module" >&2; done

# Pipes in between: the command must not take the serial ports for a terminal of its own.
mkfifo /nested/output /nested/error
cat /nested/output >/dev/ttyS1 &
cat /nested/error >/dev/ttyS2 &
/nested/command </nested/input >/nested/output 2>/nested/error
status=$?
wait
echo "exited $status" >/dev/ttyS3
reboot -f
