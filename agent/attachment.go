package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// attachment is the word of whoever runs a workload that a port has an interface here.
type attachment struct {
	UID    string         `json:"uid"`
	Tenant string         `json:"tenant"`
	Port   string         `json:"port"`
	Kind   attachmentKind `json:"kind"`
	// Interface on the host.
	Interface string `json:"interface"`
	// Netns is the file of the namespace, and Ifname the name inside, of a veth made here.
	Netns  string `json:"netns,omitempty"`
	Ifname string `json:"ifname,omitempty"`
	// CommitOn says what commits the move that brings the port here, beside the word of whoever runs the workload.
	CommitOn commitOn `json:"commitOn,omitempty"`
	// Made is a TAP device of the agent's making.
	Made *madeTAP `json:"made,omitempty"`
	// Fitted is what was changed at the workload's end for the XDP lane, to be put back.
	Fitted *fitted `json:"fitted,omitempty"`
}

type attachmentKind string

const (
	kindVeth   attachmentKind = "veth"
	kindTAP    attachmentKind = "tap"
	kindDevice attachmentKind = "device"
)

// commitOn is what commits a move; empty: the first frame of a TAP, and nothing of others, whose own stack sends before the workload does.
type commitOn string

const (
	onFirstFrame commitOn = "first frame"
	onCommand    commitOn = "command"
)

// tells reports whether the workload's first frame commits the move that brings its port here.
func (at attachment) tells() bool {
	return at.CommitOn == onFirstFrame || at.CommitOn == "" && at.Kind == kindTAP
}

// attachments is the file of them, rewritten whole with every change; a change that cannot be written is not made.
type attachments struct {
	path  string
	byUID map[string]attachment
	byIf  map[string]string
}

func openAttachments(dir string) (*attachments, error) {
	a := &attachments{path: filepath.Join(dir, "attachments.json"), byUID: map[string]attachment{}, byIf: map[string]string{}}
	b, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	var list []attachment
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read attachments %s: %w", a.path, err)
	}
	for _, at := range list {
		a.byUID[at.UID] = at
		a.byIf[at.Interface] = at.UID
	}
	return a, nil
}

// put and remove change the file first, so that a crash forgets no interface that a workload was promised.
func (a *attachments) put(at attachment) error {
	next := maps.Clone(a.byUID)
	next[at.UID] = at
	return a.save(next)
}

func (a *attachments) remove(uids ...string) error {
	next := maps.Clone(a.byUID)
	for _, uid := range uids {
		delete(next, uid)
	}
	if len(next) == len(a.byUID) {
		return nil
	}
	return a.save(next)
}

func (a *attachments) save(next map[string]attachment) error {
	list := make([]attachment, 0, len(next))
	for _, uid := range slices.Sorted(maps.Keys(next)) {
		list = append(list, next[uid])
	}
	b, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	if err := writeFile(a.path, append(b, '\n')); err != nil {
		return err
	}
	a.byUID = next
	a.byIf = make(map[string]string, len(next))
	for _, at := range list {
		a.byIf[at.Interface] = at.UID
	}
	return nil
}

// writeFile replaces a file as a whole: after a crash there is the old content or the new one.
func writeFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no error to report: after the rename it is not there
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
