package client

import (
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
)

// localTimeout is longer than a server's: an agent asks one in turn.
const localTimeout = 2 * DefaultTimeout

// LocalClient speaks to the agent of this host. Errors are *Error.
type LocalClient struct {
	localv1connect.LocalServiceClient
	transport *http.Transport
}

// Local makes a client of the agent behind a socket. It connects when it is first used.
func Local(socket string) *LocalClient {
	if socket == "" {
		socket = DefaultAgentSocket
	}
	d := &dialer{what: "agent", socket: socket, patience: DefaultPatience, clock: time.Now}
	t := d.transport()
	c := localv1connect.NewLocalServiceClient(&http.Client{Transport: t}, d.base(), connect.WithInterceptors(&explainer{dialer: d, timeout: localTimeout}))
	return &LocalClient{LocalServiceClient: c, transport: t}
}

// Close drops idle connections.
func (c *LocalClient) Close() { c.transport.CloseIdleConnections() }
