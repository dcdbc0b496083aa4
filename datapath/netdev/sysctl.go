package netdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl reads a setting of the namespace. The key has slashes, as "net/ipv4/ip_forward", since interface names may contain
// dots.
func (h *Handle) Sysctl(key string) (string, error) {
	var value []byte
	err := h.Run(func() (err error) {
		value, err = os.ReadFile(sysctlPath(key))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return strings.TrimSpace(string(value)), nil
}

// SetSysctl writes a setting of the namespace.
func (h *Handle) SetSysctl(key, value string) error {
	err := h.Run(func() error {
		f, err := os.OpenFile(sysctlPath(key), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", key, value, err)
	}
	return nil
}

func missingSysctl(err error) bool { return errors.Is(err, os.ErrNotExist) }

// sysctlPath needs no /proc mount of the namespace: /proc/sys/net shows the namespace of the thread that opens it.
func sysctlPath(key string) string { return filepath.Join("/proc/sys", filepath.Clean("/"+key)) }
