package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	peerv1 "github.com/weftnet/weft/api/gen/peer/v1"
	"github.com/weftnet/weft/api/gen/peer/v1/peerv1connect"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

// Servers find each other in the store, and each listens to every other one: what a host says to one of them all know a moment later.
//
//	Present: a record under a lease       Servers: who lives       hear: a stream from each of them -> realisation.relayed

const (
	peerDial       = 2 * time.Second
	peerFirstRetry = 50 * time.Millisecond
	peerLastRetry  = time.Second
	// peerPing finds a server that went away without a word, after this and as long again.
	peerPing = 2 * time.Second
)

// newServerID tells one life of a server from another.
func newServerID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Hear implements peer.v1.
func (a *api) Hear(ctx context.Context, req *connect.Request[peerv1.HearRequest], stream *connect.ServerStream[peerv1.HearResponse]) error {
	if req.Msg.GetAsked() != a.id {
		return connect.NewError(connect.CodeUnavailable, errors.New("another server is at this address now"))
	}
	conn := connectionOf(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	if leaf := peerLeaf(conn.tls); leaf != nil {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, streamLife(leaf, a.now()), errExpired)
		defer stop()
	}
	defer context.AfterFunc(a.stopping, func() { cancel(errStopping) })()
	var ender sync.WaitGroup
	defer ender.Wait()
	defer cancel(nil)
	ender.Go(func() {
		<-ctx.Done()
		// Send does not listen to a context: a deadline ends it.
		_ = conn.control.SetWriteDeadline(time.Now().Add(lastWords))
	})
	a.log.Info("another server listens", "server", req.Msg.GetServer())
	return a.heardBy(ctx, stream.Send)
}

// heardBy sends what is heard here until ctx ends or send fails.
func (a *api) heardBy(ctx context.Context, send func(*peerv1.HearResponse) error) error {
	l := a.heard.listen()
	defer a.heard.unlisten(l)
	for began := true; ; began = false {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.wake:
		}
		for all := false; !all; {
			var m *peerv1.HearResponse
			m, all = a.heard.collect(l)
			m.Complete = all && began
			if err := send(m); err != nil {
				return err
			}
		}
	}
}

// gather listens to all the other servers until ctx ends, and tells them that this one is there.
func (a *api) gather(ctx context.Context, address string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		a.store.Present(ctx, store.ServerRecord{ID: a.id, Address: address, Started: a.started})
	})
	dial := trust.PeerTLS(a.ca, a.id, a.cfg.Clock)
	heard := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range heard {
			stop()
		}
	}()
	for list := range a.store.Servers(ctx) {
		there := map[string]bool{a.id: true}
		for _, rec := range list {
			if there[rec.ID] = true; rec.ID != a.id && heard[rec.ID] == nil {
				ctx, stop := context.WithCancel(ctx)
				heard[rec.ID] = stop
				wg.Go(func() {
					a.listenTo(ctx, rec, dial)
					a.heard.departed(rec.ID)
				})
			}
		}
		for id, stop := range heard {
			if !there[id] {
				stop()
				delete(heard, id)
			}
		}
	}
}

// listenTo hears one server for as long as it lives.
func (a *api) listenTo(ctx context.Context, rec store.ServerRecord, tlsTo func(string) *tls.Config) {
	tr := &http.Transport{
		TLSClientConfig: tlsTo(rec.Address), ForceAttemptHTTP2: true, TLSHandshakeTimeout: peerDial,
		DialContext: (&net.Dialer{Timeout: peerDial}).DialContext,
		HTTP2:       &http.HTTP2Config{SendPingTimeout: peerPing, PingTimeout: peerPing},
	}
	defer tr.CloseIdleConnections()
	c := peerv1connect.NewPeerServiceClient(&http.Client{Transport: tr}, "https://"+rec.Address,
		connect.WithGRPC(), connect.WithReadMaxBytes(3*a.cfg.Limits.RequestOctets+relayOctets)) // the largest host has said a report, its counters, and an acknowledgement
	retry, said := peerFirstRetry, false
	for ctx.Err() == nil {
		began := time.Now()
		err := a.hear(ctx, rec, c)
		a.heard.unheard(rec.ID, a.now())
		tr.CloseIdleConnections()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > peerLastRetry {
			retry, said = peerFirstRetry, false
		}
		if !said {
			said = true
			a.log.Warn("another server cannot be heard; its hosts' state is not known", "server", rec.Address, "err", err)
		}
		if !pause(ctx, retry/2+mathrand.N(retry)) {
			return
		}
		retry = min(2*retry, peerLastRetry)
	}
}

// hear is one stream from another server; its error is never nil.
func (a *api) hear(ctx context.Context, rec store.ServerRecord, c peerv1connect.PeerServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Hear(ctx, connect.NewRequest(&peerv1.HearRequest{Server: a.id, Asked: rec.ID}))
	if err != nil {
		return err
	}
	defer stream.Close()
	named, complete := map[model.UID]struct{}{}, false
	for stream.Receive() {
		m := stream.Msg()
		if err := restored(m); err != nil {
			return err
		}
		for _, s := range a.heard.relayed(rec.ID, m) {
			s.cancel(errReplaced)
		}
		if complete {
			continue
		}
		for _, h := range m.GetHosts() {
			named[model.UID(h.GetUid())] = struct{}{}
		}
		if complete = m.GetComplete(); complete {
			a.heard.heardAll(rec.ID, named)
			named = nil
			a.log.Info("another server is heard", "server", rec.Address)
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return errors.New("it ended the stream")
}

// advertised is the address at which other servers reach this one: as configured, or the one that it listens on, or that of this machine
// towards the store.
func advertised(cfg Config, listening net.Addr) (string, error) {
	if cfg.Advertise != "" {
		return cfg.Advertise, nil
	}
	at, err := netip.ParseAddrPort(listening.String())
	if err != nil {
		return "", fmt.Errorf("read the address that the server listens on: %w", err)
	}
	addr := at.Addr().Unmap()
	if addr.IsUnspecified() {
		addr = towards(cfg.EtcdEndpoints, addr)
	}
	return netip.AddrPortFrom(addr, at.Port()).String(), nil
}

// towards is this machine's address on the way to the first endpoint that has a route; on a machine that keeps its store to itself, loopback.
func towards(endpoints []string, unspecified netip.Addr) netip.Addr {
	for _, ep := range endpoints {
		if u, err := url.Parse(ep); err == nil && u.Host != "" {
			ep = u.Host
		}
		c, err := net.Dial("udp", strings.TrimPrefix(ep, "unix://")) // sends nothing: it looks the route up
		if err != nil {
			continue
		}
		c.Close()
		if local, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
			return local.Addr().Unmap()
		}
	}
	if unspecified.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
