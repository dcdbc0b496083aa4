package server

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
)

// A server that the store does not answer has plans that are getting old. As long as nobody else has newer ones its hosts stay: forwarding
// goes on as it is. When another server says that the store answers it, the hosts are sent away, and go to the next one of their list.

const (
	// storeAsked is how often a server finds out whether the store answers it.
	storeAsked = time.Second
	// storeSilent is how long the store may be silent, longer than an election takes.
	storeSilent = 3 * time.Second
)

// errNoStore ends a host's stream.
var errNoStore = connect.NewError(connect.CodeUnavailable, errors.New("this server has lost the store, and another one has not: ask that one"))

// attend finds out whether the store answers, tells the other servers, and sends the hosts away when they are better off there.
func (a *api) attend(ctx context.Context) {
	answered := time.Now()
	for {
		if _, err := a.fresher.ask(ctx, storeSilent); err == nil {
			answered = time.Now()
		}
		has := time.Since(answered) < storeSilent
		if a.heard.attended(has); !has {
			if sessions := a.heard.betterOff(); len(sessions) > 0 {
				a.log.Warn("the store does not answer this server, and answers another one: the hosts are sent away", "hosts", len(sessions))
				for _, s := range sessions {
					s.cancel(errNoStore)
				}
			}
		}
		if !pause(ctx, storeAsked) {
			return
		}
	}
}

// attended notes whether the store answers this server, and tells the listeners when that is new.
func (r *realisation) attended(has bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hasStore == has {
		return
	}
	r.hasStore = has
	for l := range r.listeners {
		l.ring()
	}
}

// betterOff are the sessions here that should be elsewhere: another server is heard, and has the store.
func (r *realisation) betterOff() (out []*session) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, has := range r.haveStore {
		if !has {
			continue
		}
		for _, h := range r.hosts {
			if h.session != nil {
				out = append(out, h.session)
			}
		}
		break
	}
	return out
}
