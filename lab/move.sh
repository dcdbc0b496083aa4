#!/bin/sh
# A machine's MAC is behind another host now: what an administrator of Linux bridges with vxlan devices runs when one has moved. The target first,
# as it must deliver before anything is sent to it; then the host that it came from and all others, at the same time. Hosts are network namespaces
# here, which are entered faster than any ssh.
# usage: move.sh BRIDGE-PORT VXLAN MAC TARGET-NETNS TARGET-VTEP HOST-NETNS...
set -e
port=$1 vxlan=$2 mac=$3 target=$4 vtep=$5
shift 5
on() { host=$1; shift; nsenter --net=/run/netns/"$host" "$@"; }
on "$target" bridge fdb replace "$mac" dev "$port" master static
for other in "$@"; do
	printf '%s\n' "fdb replace $mac dev $vxlan dst $vtep self permanent" "fdb replace $mac dev $vxlan master static" | on "$other" bridge -batch - &
done
wait
on "$target" bridge fdb del "$mac" dev "$vxlan" self 2>/dev/null || true
