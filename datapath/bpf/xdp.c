// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* The XDP lane: an object of its own, over the same maps. */
#define LANE_XDP
#include "headers/kernel.h"
#include "drop.h"

#include "xdp_from_port.c"
#include "xdp_from_uplink.c"

char _license[] SEC("license") = "Dual BSD/GPL";
