package model

// The kinds of objects, as tombstones, audit records and messages name them.
const (
	KindTenant   = "tenant"
	KindNetwork  = "network"
	KindPort     = "port"
	KindBinding  = "binding"
	KindHost     = "host"
	KindVTEP     = "vtep"
	KindPool     = "pool"
	KindAPIToken = "token"

	KindGroupPool = "group pool"
)

// Kind is KindTenant.
func (*Tenant) Kind() string { return KindTenant }

// Kind is KindNetwork.
func (*Network) Kind() string { return KindNetwork }

// Kind is KindPort.
func (*Port) Kind() string { return KindPort }

// Kind is KindBinding.
func (*Binding) Kind() string { return KindBinding }

// Kind is KindHost.
func (*Host) Kind() string { return KindHost }

// Kind is KindVTEP.
func (*VTEP) Kind() string { return KindVTEP }

// Kind is KindPool.
func (*VNIPool) Kind() string { return KindPool }

// Kind is KindGroupPool.
func (*GroupPool) Kind() string { return KindGroupPool }

// Kind is KindAPIToken.
func (*APIToken) Kind() string { return KindAPIToken }
