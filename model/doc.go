// Package model is intent: what users ask for, with every rule about what may be asked.
//
// Defaults and validation live here and nowhere else. The package touches nothing: no I/O, no clock, no randomness; ids
// and times come in as arguments. Read Port, Binding and Error first.
package model
