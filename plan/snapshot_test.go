package plan

import (
	"maps"
	"testing"
	"time"
)

func testSnapshot(t *testing.T) (Snapshot, []byte) {
	t.Helper()
	s := Snapshot{
		StoreID: "s", Revision: 7, Set: NewSet(testNetwork("n", 5000), testPort("p", "n", "web1"), testVTEP("v")),
		Epochs: map[string]int64{"p": 6}, Written: time.Unix(1_700_000_000, 0).UTC(),
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s, b
}

func TestSnapshot(t *testing.T) {
	s, b := testSnapshot(t)
	got, err := DecodeSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.StoreID != s.StoreID || got.Revision != s.Revision || !got.Set.Equal(s.Set) || !maps.Equal(got.Epochs, s.Epochs) || !got.Written.Equal(s.Written) {
		t.Fatalf("got %+v, want %+v", got, s)
	}
	if empty, err := (Snapshot{}).Encode(); err != nil {
		t.Fatal(err)
	} else if got, err := DecodeSnapshot(empty); err != nil || got.Set.Len() != 0 || got.Epochs == nil {
		t.Fatalf("an empty one gave %+v, %v", got, err)
	}
}

// TestSnapshotCorruption: every flipped bit, every cut and every appended octet is found. Red when the trailer is not
// compared.
func TestSnapshotCorruption(t *testing.T) {
	_, b := testSnapshot(t)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := DecodeSnapshot(b); err == nil {
				t.Fatalf("octet %d with bit %d flipped was taken", i, bit)
			}
			b[i] ^= 1 << bit
		}
		if _, err := DecodeSnapshot(b[:i]); err == nil {
			t.Fatalf("the first %d octets were taken", i)
		}
	}
	if _, err := DecodeSnapshot(append(b, 0)); err == nil {
		t.Fatal("an appended octet was taken")
	}
}
