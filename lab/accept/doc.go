// Package accept holds weft's acceptance tests: the real binary, real agents and the kernel's own forwarding in a lab, beside
// peers that weft did not write (tshark, the Linux vxlan device, the kernel's TCP).
//
// Each test says in its comment what one-line break in the product turns it red. The package has no code of its own.
package accept
