// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* The tc lane and the kernel lane: one object, so that the programs share their maps and are loaded in one step. */
#include "headers/kernel.h"
#include "drop.h"

#include "from_port.c"
#include "from_uplink.c"
#include "from_vxlan.c"
#include "to_uplink.c"
#include "forget.c"

char _license[] SEC("license") = "Dual BSD/GPL";
