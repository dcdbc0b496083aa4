package agent

import (
	"runtime"
	"sync"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// Take takes a step of the plan in. Nothing is written before Flush. What can be done at once is, when there is much of it.
func (r *Reconciler) Take(upserts, removed []*plan.Resource) {
	changes, doubt := r.changesOf(upserts, removed)
	atOnce(len(upserts), doubt, func() { r.Apply(changes) })
}

// many is from how many resources on two things are done at once.
const many = 1000

func atOnce(resources int, one, other func()) {
	if resources < many {
		one()
		other()
		return
	}
	var beside sync.WaitGroup
	beside.Go(one)
	other()
	beside.Wait()
}

// onAllCores looks at many things on all cores (plan.Spread).
func onAllCores(n int, look func(i int)) {
	shares := 1
	if n >= many/5 {
		shares = runtime.GOMAXPROCS(0)
	}
	part := func(share int) {
		for i := share * n / shares; i < (share+1)*n/shares; i++ {
			look(i)
		}
	}
	var others sync.WaitGroup
	for s := 1; s < shares; s++ {
		others.Go(func() { part(s) })
	}
	part(0)
	others.Wait()
}

// changesOf decodes what a step brings. A resource that cannot be understood leaves the last good one in place. Networks that
// share a VNI are all left out until one has it alone: frames that arrive with it may be of either, and a host that chose one
// would join it with the other of a host that chose differently. What it returns besides notes what the plan lacks.
func (r *Reconciler) changesOf(upserts, removed []*plan.Resource) (list []change, doubt func()) {
	var others []plan.Key
	values, errs := make([]any, len(upserts)), make([]error, len(upserts))
	atOnce(len(upserts), func() { others = r.checker.Apply(upserts, removed) }, func() {
		onAllCores(len(upserts), func(i int) { values[i], errs[i] = decode(upserts[i]) })
	})
	list = make([]change, 0, len(upserts)+len(removed))
	for _, res := range removed {
		list = append(list, change{kind: res.Kind, uid: res.UID})
		delete(r.contested, res.UID)
		delete(r.doubts, res.Key())
	}
	features := plan.Features()
	for i, res := range upserts {
		res.Forget()
		if err := errs[i]; err != nil {
			r.view.broken[res.Key()] = err.Error()
			continue
		}
		delete(r.view.broken, res.Key())
		c := change{kind: res.Kind, uid: res.UID, value: values[i], lacks: plan.Missing(res, features)}
		if delete(r.contested, res.UID); c.kind == planv1.Kind_KIND_NETWORK && r.checker.Contested(c.uid) {
			c = r.contest(c)
		}
		list = append(list, c)
	}
	for _, key := range others {
		if key.Kind == planv1.Kind_KIND_NETWORK {
			list = append(list, r.contestedNow(key.UID)...)
		}
	}
	return list, func() {
		for i, res := range upserts {
			if errs[i] == nil {
				r.doubt(res.Key())
			}
		}
		for _, key := range others {
			r.doubt(key)
		}
	}
}

// contest keeps a network aside; what it returns takes it out of the view, where its ports stay, held.
func (r *Reconciler) contest(c change) change {
	r.contested[c.uid] = c
	return change{kind: c.kind, uid: c.uid}
}

// contestedNow is what becomes of a network when another took its VNI, or left it.
func (r *Reconciler) contestedNow(uid string) []change {
	aside, was := r.contested[uid]
	n := r.view.nets[uid]
	switch is := r.checker.Contested(uid); {
	case is && !was && n != nil:
		return []change{r.contest(change{kind: planv1.Kind_KIND_NETWORK, uid: uid, value: n, lacks: r.view.lacking[uid]})}
	case was && !is:
		delete(r.contested, uid)
		return []change{aside}
	}
	return nil
}

// doubt notes what the plan lacks that a resource needs, or forgets it.
func (r *Reconciler) doubt(key plan.Key) {
	if why := r.checker.Held(key); why != "" {
		r.doubts[key] = why
	} else {
		delete(r.doubts, key)
	}
}
