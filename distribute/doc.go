// Package distribute brings resources to hosts over streams: each stream reads the shared, bounded ring of changes at its
// own pace, and is resynchronised from the current set when it fell behind.
//
// It never waits for a host, keeps nothing a host has not subscribed to on its behalf, and knows neither intent nor the
// transport: a stream is a function that sends. Read Distributor and its Serve first.
package distribute
