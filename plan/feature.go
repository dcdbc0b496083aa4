package plan

import "slices"

// FeatureMoves: the agent takes a port over by steps. It reports when it is prepared for a port that is incoming, and forwards late frames of one
// that is draining.
const FeatureMoves = "moves"

// FeatureMembers: the agent finds the members of a network in its ports. Every network requires it, as no list of them is sent.
const FeatureMembers = "members"

// FeatureLearning: the agent learns MACs from frames in networks that ask for it, and takes unlisted VTEPs where they may come.
const FeatureLearning = "learning"

// FeatureMulticast: the agent floods by multicast groups of the underlay, and joins them.
const FeatureMulticast = "multicast"

// Features are what agents of this version understand beyond the resources of the first version, which need none. A
// resource that changes what an older agent would do names a feature in Requires; see Checker for what that agent does.
func Features() []string {
	return []string{FeatureMoves, FeatureMembers, FeatureLearning, FeatureMulticast}
}

// Missing is the first feature that a resource requires and is not among those known, or "".
func Missing(r *Resource, known []string) string {
	for _, f := range r.Requires {
		if !slices.Contains(known, f) {
			return f
		}
	}
	return ""
}
