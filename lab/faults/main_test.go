package faults

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
)

// This binary is started three times over:
//
//	go test            makes the namespaces, and runs itself inside the hub, where the bridge is
//	in the hub         runs the tests
//	as a member        is one member of the etcd cluster
const (
	inHub    = "WEFT_FAULTS_NET"    // the prefix of the namespaces' names
	asMember = "WEFT_FAULTS_MEMBER" // a member, as JSON
)

func TestMain(m *testing.M) {
	flag.Parse()
	if text := os.Getenv(asMember); text != "" {
		runMember(text)
		return
	}
	if os.Getenv(inHub) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run()) // without root every test says that it needs it
	}
	os.Exit(runInHub())
}

// runInHub makes the net, runs the tests in it, and takes it away however they end.
func runInHub() int {
	prefix := fmt.Sprintf("wff%d", os.Getpid())
	defer takeNetDown(prefix)
	if err := makeNet(prefix); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", prefix + "-hub", os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), inHub+"="+prefix)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// memberConfig is what a member's process is told.
type memberConfig struct {
	Name, Dir, Address, Cluster string
}

// runMember is one member of etcd, until it is killed or cannot go on.
func runMember(text string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var m memberConfig
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		fail(err)
	}
	at := func(port int) []url.URL {
		return []url.URL{{Scheme: "http", Host: fmt.Sprintf("%s:%d", m.Address, port)}}
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = m.Name, m.Dir, m.Cluster
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at(2379), at(2379)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at(2380), at(2380)
	cfg.LogLevel, cfg.LogOutputs = "warn", []string{"stderr"}
	cfg.EnableGRPCGateway = false
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		fail(err)
	}
	fail(<-etcd.Err())
}
