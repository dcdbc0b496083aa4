package agent

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weftnet/weft/wire"
)

// A host on which a commit was made tells the host that the port goes from, directly over the OAM network:
//
//	target                                      source
//	   | -- claim: port, epoch, who claims -------> |  believes it only if its own plan has just that move; then holds its copy
//	   | <- claimed ------------------------------- |  and turns the port's MACs to the target, before it answers
//
// The claim is repeated until the plan tells of the commit: the source may be new to the plan, or have been started again.

// moveClaim says that a port's workload runs on the claimant since a binding of that epoch made it incoming there.
type moveClaim struct {
	uid, claimant string
	epoch         int64
}

// append is the claim behind its head: the epoch, then both uids, each after an octet that has its length.
func (c moveClaim) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(c.epoch))
	for _, s := range []string{c.uid, c.claimant} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

func parseClaim(b []byte) (c moveClaim, ok bool) {
	if len(b) < 8 {
		return c, false
	}
	c.epoch, b = int64(binary.BigEndian.Uint64(b)), b[8:]
	for _, s := range []*string{&c.uid, &c.claimant} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return c, false
		}
		*s, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	return c, true
}

const (
	// firstClaims are this far apart, each twice as far as the one before, until they are lastClaims apart.
	firstClaims = 2 * time.Millisecond
	lastClaims  = time.Second
	// mostClaims a second are looked at: each is a few look-ups, and one that is believed a few writes to the kernel.
	mostClaims = 5000
)

// claims are the Prober's part in them.
type claims struct {
	// believe decides about a claim from the host with that MAC, and does what follows. It may be asked often.
	believe func(c moveClaim, from wire.MAC) bool

	mu      sync.Mutex
	waiting map[uint64]func()
	heard   int
	second  int64
}

// Claim tells a host of a claim, at once and again until the context ends. answered is called once, when the first answer has come.
func (p *Prober) Claim(ctx context.Context, c moveClaim, to wire.MAC, answered func()) {
	nonce := rand.Uint64()
	p.claims.mu.Lock()
	if p.claims.waiting == nil {
		p.claims.waiting = map[uint64]func(){}
	}
	p.claims.waiting[nonce] = answered
	p.claims.mu.Unlock()
	defer func() {
		p.claims.mu.Lock()
		delete(p.claims.waiting, nonce)
		p.claims.mu.Unlock()
	}()
	timer := time.NewTimer(firstClaims)
	defer timer.Stop()
	wait := firstClaims
	for way := nonce; ; way++ {
		if err := p.say(to, head{probeClaim, nonce}, way, c); err != nil {
			p.log.Debug("a claim was not sent", "port", c.uid, "err", err)
		}
		timer.Reset(wait)
		wait = min(2*wait, lastClaims)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// say sends one; those that differ in way may go different ways through the underlay.
func (p *Prober) say(to wire.MAC, h head, way uint64, c moveClaim) error {
	return p.socket.Send(p.flow(to).UDP(probePort(head{nonce: way}), probeUDPPort, c.append(h.append(nil))), 0)
}

// hearClaim takes a claim or an answer in.
func (p *Prober) hearClaim(h head, from wire.MAC, body []byte) {
	c, ok := parseClaim(body)
	if !ok {
		return
	}
	if h.kind == probeClaimed {
		if answered := p.claims.answeredBy(h.nonce); answered != nil {
			answered()
		}
		return
	}
	if p.claims.believe == nil || !p.claims.allow(time.Now()) || !p.claims.believe(c, from) {
		return
	}
	if err := p.say(from, head{probeClaimed, h.nonce}, rand.Uint64(), c); err != nil {
		p.log.Debug("a claim was not answered", "port", c.uid, "err", err)
	}
}

// answeredBy is who waits for that answer: once.
func (c *claims) answeredBy(nonce uint64) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered := c.waiting[nonce]
	if answered != nil {
		c.waiting[nonce] = nil
	}
	return answered
}

func (c *claims) allow(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := now.Unix(); s != c.second {
		c.second, c.heard = s, 0
	}
	c.heard++
	return c.heard <= mostClaims
}

// noMAC is nobody's.
var noMAC wire.MAC
