package plan

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// snapshotMagic opens the file and names its version.
const snapshotMagic = "weft-plan-1\n"

// Snapshot is what an agent keeps in a file, so that its host starts without a server.
type Snapshot struct {
	StoreID  string
	Revision int64
	Set      *Set
	// Epochs are the highest seen of each port.
	Epochs  map[string]int64
	Written time.Time
}

// Encode is the content of the file: magic, planv1.Snapshot, sha256 of both.
func (s Snapshot) Encode() ([]byte, error) {
	m := &planv1.Snapshot{StoreId: s.StoreID, Revision: s.Revision, Epochs: s.Epochs, Written: timestamppb.New(s.Written)}
	if s.Set != nil {
		for r := range s.Set.All() {
			m.Resources = append(m.Resources, r.Proto())
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte(snapshotMagic), m)
	if err != nil {
		return nil, fmt.Errorf("encode the plan snapshot: %w", err)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// DecodeSnapshot reads the file. A torn, foreign or altered one is an error, and never half a plan.
func DecodeSnapshot(b []byte) (Snapshot, error) {
	if !bytes.HasPrefix(b, []byte(snapshotMagic)) || len(b) < len(snapshotMagic)+sha256.Size {
		return Snapshot{}, fmt.Errorf("decode the plan snapshot: it is cut short, or no plan snapshot of this version")
	}
	content, trailer := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sum := sha256.Sum256(content); !bytes.Equal(sum[:], trailer) {
		return Snapshot{}, fmt.Errorf("decode the plan snapshot: its checksum is wrong")
	}
	m := new(planv1.Snapshot)
	if err := proto.Unmarshal(content[len(snapshotMagic):], m); err != nil {
		return Snapshot{}, fmt.Errorf("decode the plan snapshot: %w", err)
	}
	s := Snapshot{StoreID: m.GetStoreId(), Revision: m.GetRevision(), Set: NewSet(), Epochs: m.GetEpochs(), Written: m.GetWritten().AsTime()}
	if s.Epochs == nil {
		s.Epochs = map[string]int64{}
	}
	for _, rm := range m.GetResources() {
		r, err := FromProto(rm)
		if err != nil {
			return Snapshot{}, fmt.Errorf("decode the plan snapshot: %w", err)
		}
		s.Set.Put(r)
	}
	return s, nil
}
