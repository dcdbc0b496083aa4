#!/bin/busybox sh
# The first process of a lab's virtual machine: drivers, addresses, and then the program that does as the second serial port says.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
for m in $(cat /modules/order); do
	insmod "/modules/$m" || echo "module $m does not load"
done
ip link set lo up
ip link set eth0 up
for word in $(cat /proc/cmdline); do
	case $word in
	weft.addresses=*)
		for a in $(echo "${word#*=}" | tr , ' '); do
			ip addr add "$a" dev eth0
		done
		;;
	esac
done
ip addr show eth0
stty -F /dev/ttyS1 raw -echo
weft lab guest </dev/ttyS1 >/dev/ttyS1
echo "the program of the guest has ended with $?"
poweroff -f
