package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/cli"
	"github.com/weftnet/weft/server"
)

// serverFlags are the flags of `weft server`, and of `weft up` for its server.
type serverFlags struct {
	cfg                       server.Config
	etcdCA, etcdCert, etcdKey string
	verbose                   bool
}

func (f *serverFlags) add(cmd *cobra.Command, dir, socket string) {
	fl := cmd.Flags()
	fl.StringVar(&f.cfg.Listen, "listen", ":7348", "TLS `address` for the API and for agents")
	fl.StringVar(&f.cfg.Advertise, "advertise", "", "`host:port` at which the deployment's other servers reach this one (default: the address it listens on, or has towards etcd)")
	fl.StringSliceVar(&f.cfg.Names, "tls-name", nil, "DNS `name` or address that clients use, beside this machine's own (repeatable)")
	fl.StringVar(&f.cfg.Dir, dir, "/var/lib/weft/server", "`directory` of the CA and of the embedded etcd")
	fl.StringVar(&f.cfg.Socket, socket, "/run/weft/server.sock", "`path` of the root-only socket for the CLI on this machine")
	fl.StringSliceVar(&f.cfg.EtcdEndpoints, "etcd-endpoints", nil, "`URLs` of an external etcd cluster; without it etcd is embedded")
	fl.StringVar(&f.etcdCA, "etcd-ca", "", "CA `file` of the external cluster")
	fl.StringVar(&f.etcdCert, "etcd-cert", "", "client certificate `file` for the external cluster")
	fl.StringVar(&f.etcdKey, "etcd-key", "", "client key `file` for the external cluster")
	fl.BoolVar(&f.cfg.ReplaceCA, "replace-ca", false, "go on with this server's own CA (or a new one) when the deployment's is lost: every host and client must join again")
	fl.Int64Var(&f.cfg.EtcdQuotaOctets, "etcd-quota", 0, "most `octets` the embedded etcd may hold (0: 8 GiB)")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log at debug level")
}

func (f *serverFlags) config() (server.Config, error) {
	cfg := f.cfg
	cfg.Version, cfg.Commit, cfg.Log = version, commit, logger(f.verbose)
	if f.etcdCA == "" && f.etcdCert == "" && f.etcdKey == "" {
		return cfg, nil
	}
	if len(cfg.EtcdEndpoints) == 0 {
		return cfg, cli.Usagef("name the cluster with --etcd-endpoints", "--etcd-ca, --etcd-cert and --etcd-key are for an external cluster")
	}
	cfg.EtcdTLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if f.etcdCA != "" {
		pem, err := os.ReadFile(f.etcdCA)
		if err != nil {
			return cfg, fmt.Errorf("read --etcd-ca: %w", err)
		}
		cfg.EtcdTLS.RootCAs = x509.NewCertPool()
		if !cfg.EtcdTLS.RootCAs.AppendCertsFromPEM(pem) {
			return cfg, cli.Usagef("name the file of the cluster's CA", "--etcd-ca %s holds no PEM certificate", f.etcdCA)
		}
	}
	if f.etcdCert != "" || f.etcdKey != "" {
		pair, err := tls.LoadX509KeyPair(f.etcdCert, f.etcdKey)
		if err != nil {
			return cfg, fmt.Errorf("read --etcd-cert and --etcd-key: %w", err)
		}
		cfg.EtcdTLS.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func serverCommand() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a weft server: the API, the store and the plans of every host",
		Long: "Run a weft server. At its first start it makes its own CA and an embedded etcd below --dir.\n" +
			"The CLI on this machine uses the root-only socket; agents and other clients use TLS.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("weft server"); err != nil {
				return err
			}
			cfg, err := f.config()
			if err != nil {
				return err
			}
			return runServer(cmd.Context(), cfg)
		},
	}
	f.add(cmd, "dir", "socket")
	return cmd
}

func runServer(ctx context.Context, cfg server.Config) error {
	s := server.New(cfg)
	if err := s.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func requireRoot(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s must run as root: run it with sudo, or as a systemd service", what)
	}
	return nil
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
