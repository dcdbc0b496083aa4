package client

import (
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
)

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
	c := localv1connect.NewLocalServiceClient(&http.Client{Transport: t}, d.base(), connect.WithInterceptors(&explainer{}))
	return &LocalClient{LocalServiceClient: c, transport: t}
}

// Close drops idle connections.
func (c *LocalClient) Close() { c.transport.CloseIdleConnections() }
