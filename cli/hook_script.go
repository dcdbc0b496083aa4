package cli

// libvirtScript is /etc/libvirt/hooks/qemu.d/weft. Its standard output stays empty: in a migration libvirt would take it for the machine's new
// description. What it says is also logged, as libvirt drops it when the script succeeds.
const libvirtScript = `#!/bin/sh
# /etc/libvirt/hooks/qemu.d/weft: tells this host's weft agent which machines start, arrive and stop here.
# Printed by "weft hook libvirt --print-script". Settings, as shell variables, in /etc/weft/hook.conf:
ON_ERROR=closed                       # a machine whose ports cannot be attached is not started; open: it is
LIMIT=2s                              # for all of it
AGENT_SOCKET=/run/weft/agent.sock
TENANT=                               # of ports that name none
WEFT=weft                             # the program
conf=${WEFT_HOOK_CONF:-/etc/weft/hook.conf}
[ ! -r "$conf" ] || . "$conf"

case $2 in
migrate | prepare | attach | reconnect | stopped | release) ;;
*) exit 0 ;;
esac
said=$("$WEFT" hook libvirt --on-error "$ON_ERROR" --limit "$LIMIT" --agent-socket "$AGENT_SOCKET" --tenant "$TENANT" -- "$@" 2>&1)
status=$?
if [ -n "$said" ]; then
	printf '%s\n' "$said" >&2
	logger -t weft-hook -p daemon.err -- "$said" </dev/null >/dev/null 2>&1 &
fi
# The program itself may be what is missing. And libvirt kills a running machine whose reconnect fails.
if [ "$ON_ERROR" = open ] || [ "$2" = reconnect ]; then
	status=0
fi
exit $status
`
