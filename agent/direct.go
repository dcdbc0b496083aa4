package agent

import (
	"context"
	"crypto/tls"
	"net"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan/stream"
)

// mostOctets bounds one message of a server. It cuts a plan at 256 KiB, and one resource may be larger.
const mostOctets = 64 << 20

// planStream is a stream to a server: a gRPC one, or stream.Conn.
type planStream interface {
	Send(*planv1.AgentMessage) error
	Receive() (*planv1.ServerMessage, error)
	// CloseRequest says that nothing more comes, CloseResponse that nothing more is wanted.
	CloseRequest() error
	CloseResponse() error
}

// open begins a stream, with no HTTP between it and TLS where the server knows how; an older one gets a gRPC stream. It ends with the context.
func (s *Speaker) open(ctx context.Context, server string) (planStream, error) {
	cfg := s.tls(server).Clone()
	cfg.NextProtos = []string{stream.Protocol, "h2"}
	within, cancel := context.WithTimeout(ctx, 2*dialTimeout) // to connect, and to shake hands
	defer cancel()
	c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout, KeepAlive: pingEvery}, Config: cfg}).DialContext(within, "tcp", server)
	if err != nil {
		return nil, err
	}
	conn := c.(*tls.Conn)
	if conn.ConnectionState().NegotiatedProtocol != stream.Protocol {
		conn.Close()
		return s.client(server).Stream(ctx), nil
	}
	d := direct{stream.New(conn, mostOctets, pingEvery+pingPatience)}
	context.AfterFunc(ctx, func() { d.Close() })
	return d, nil
}

// direct is a stream.Conn as a planStream.
type direct struct{ *stream.Conn }

// Send says something to the server.
func (d direct) Send(m *planv1.AgentMessage) error { return d.Conn.Send(m) }

// Receive is the next thing that the server says.
func (d direct) Receive() (*planv1.ServerMessage, error) {
	m := new(planv1.ServerMessage)
	return m, d.Conn.Receive(m)
}

// CloseRequest implements planStream.
func (d direct) CloseRequest() error { return d.Close() }

// CloseResponse implements planStream.
func (d direct) CloseResponse() error { return d.Close() }
