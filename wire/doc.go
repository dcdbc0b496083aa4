// Package wire turns octets into values and back: MACs, VNIs and the headers that weft reads and writes.
//
// It does no I/O, reads no clock, starts no goroutine and logs nothing; it imports the standard library only.
// Read MAC, VNI and Frame first.
package wire
