package qemu

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var firstProcess []byte

// DefaultKernel is where scripts/guest-kernel unpacks one.
const DefaultKernel = "/var/cache/weft/guest"

// Kernel is one of a distribution, unpacked or installed: Root holds boot and lib/modules.
type Kernel struct {
	Root, Release string
}

// FindKernel finds the newest kernel below a root, as a package's files lie.
func FindKernel(root string) (Kernel, error) {
	found, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return Kernel{}, err
	}
	if len(found) == 0 {
		return Kernel{}, fmt.Errorf("there is no %s: fetch a kernel for guests with `scripts/guest-kernel %s`", filepath.Join(root, "boot", "vmlinuz-*"), root)
	}
	newest := slices.MaxFunc(found, func(a, b string) int {
		ta, tb := modified(a), modified(b)
		return int(min(max(ta-tb, -1), 1))
	})
	return Kernel{Root: root, Release: strings.TrimPrefix(filepath.Base(newest), "vmlinuz-")}, nil
}

func modified(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.ModTime().UnixNano()
}

// File is the kernel's own.
func (k Kernel) File() string { return filepath.Join(k.Root, "boot", "vmlinuz-"+k.Release) }

// needed modules, with whatever they need themselves, unless they are part of the kernel.
var needed = []string{"virtio_pci", "virtio_net"}

// WriteImage writes a guest's whole file system, to be kept in its memory: busybox, the kernel's drivers for virtio, and the program that
// does as it is told by the second serial port (`weft lab guest`). weft and busybox must be linked statically.
func (k Kernel) WriteImage(path, weft, busybox string) error {
	modules, err := k.modules()
	if err != nil {
		return err
	}
	a := &archive{}
	for _, dir := range []string{"bin", "dev", "proc", "sys", "run", "tmp", "modules"} {
		a.add(dir, fs.ModeDir|0o755, nil)
	}
	a.add("init", 0o755, firstProcess)
	for name, file := range map[string]string{"bin/busybox": busybox, "bin/weft": weft} {
		b, err := static(file)
		if err != nil {
			return err
		}
		a.add(name, 0o755, b)
	}
	var order []string
	for _, m := range modules {
		order = append(order, m.name)
		a.add("modules/"+m.name, 0o644, m.octets)
	}
	a.add("modules/order", 0o644, []byte(strings.Join(order, "\n")+"\n"))
	return os.WriteFile(path, a.end(), 0o644)
}

// static reads a program that needs no library.
func static(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s is no program for this machine: %w", path, err)
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, fmt.Errorf("%s needs libraries, which the guest has not: link it statically (weft: CGO_ENABLED=0; busybox: install busybox-static)", path)
	}
	return b, nil
}

type module struct {
	name   string
	octets []byte
}

// modules in an order in which they can be loaded.
func (k Kernel) modules() ([]module, error) {
	files := map[string]string{}
	root := filepath.Join(k.Root, "lib", "modules", k.Release, "kernel")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && err == nil && !d.IsDir() {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the modules of %s: %w", k.Release, err)
	}
	var list []module
	for _, name := range needed {
		if list, err = load(list, files, name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// load adds a module behind those that it needs.
func load(list []module, files map[string]string, name string) ([]module, error) {
	path, ok := files[name]
	if !ok || slices.ContainsFunc(list, func(m module) bool { return m.name == name }) {
		return list, nil // part of the kernel, or there
	}
	b, err := unpacked(path)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", name, err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", name, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read module %s: it does not say what it needs", name)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", name, err)
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		needs, ok := strings.CutPrefix(field, "depends=")
		if !ok || needs == "" {
			continue
		}
		for n := range strings.SplitSeq(needs, ",") {
			if list, err = load(list, files, strings.ReplaceAll(n, "-", "_")); err != nil {
				return nil, err
			}
		}
	}
	return append(list, module{name: name, octets: b}), nil
}

// unpacked reads a module, which newer packages keep compressed.
func unpacked(path string) ([]byte, error) {
	tools := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}
	tool, ok := tools[filepath.Ext(path)]
	if !ok {
		return os.ReadFile(path)
	}
	out, err := exec.Command(tool, "-dc", path).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return out, err
}

// archive is a cpio archive in the "newc" format, as kernels unpack it (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	bytes.Buffer
	files int
}

const (
	cpioRegular   = 0o100000
	cpioDirectory = 0o040000
)

func (a *archive) add(name string, mode fs.FileMode, octets []byte) {
	a.files++
	kind := uint32(cpioRegular)
	if mode.IsDir() {
		kind = cpioDirectory
	}
	a.entry(name, kind|uint32(mode.Perm()), octets)
}

func (a *archive) entry(name string, mode uint32, octets []byte) {
	fields := []uint32{uint32(a.files), mode, 0, 0, 1, 0, uint32(len(octets)), 0, 0, 0, 0, uint32(len(name) + 1), 0}
	a.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(a, "%08X", f)
	}
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(octets)
	a.pad()
}

func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

func (a *archive) end() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.Bytes()
}
