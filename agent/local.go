package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
)

// socket is the local API: connect over HTTP on a unix socket that only root may open.
type socket struct {
	server   *http.Server
	listener net.Listener
}

func (a *Agent) listen() (*socket, error) {
	if err := os.MkdirAll(filepath.Dir(a.cfg.Socket), 0o755); err != nil {
		return nil, err
	}
	// The lock on the directory says that whoever made this socket is gone.
	if err := os.Remove(a.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := syscall.Umask(0o177) // never open to others, not even for a moment
	l, err := net.Listen("unix", a.cfg.Socket)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle(localv1connect.NewLocalServiceHandler(&localService{agent: a}))
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &socket{
		server:   &http.Server{Handler: mux, Protocols: protocols, ReadHeaderTimeout: 5 * time.Second},
		listener: l,
	}, nil
}

// serve answers until the context ends, and lets what is under way finish.
func (s *socket) serve(ctx context.Context) {
	down := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(down)
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.server.Shutdown(grace) != nil {
			s.server.Close()
		}
	})
	// Serve ends with ErrServerClosed, as soon as the context does.
	_ = s.server.Serve(s.listener)
	<-down
}

// localService is local.v1.LocalService.
type localService struct {
	agent *Agent
}

var _ localv1connect.LocalServiceHandler = (*localService)(nil)

func (s *localService) Attach(ctx context.Context, req *connect.Request[localv1.AttachRequest]) (*connect.Response[localv1.AttachResponse], error) {
	if err := s.agent.mayAttach(); err != nil {
		return nil, err
	}
	at, err := s.agent.attach(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&localv1.AttachResponse{Attachment: at}), nil
}

func (s *localService) Detach(ctx context.Context, req *connect.Request[localv1.DetachRequest]) (*connect.Response[localv1.DetachResponse], error) {
	if err := s.agent.mayAttach(); err != nil {
		return nil, err
	}
	if err := s.agent.detach(ctx, req.Msg); err != nil {
		return nil, err
	}
	return connect.NewResponse(&localv1.DetachResponse{}), nil
}

func (s *localService) Commit(ctx context.Context, req *connect.Request[localv1.CommitRequest]) (*connect.Response[localv1.CommitResponse], error) {
	at, err := s.agent.commit(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&localv1.CommitResponse{Attachment: at}), nil
}

func (s *localService) Abort(ctx context.Context, req *connect.Request[localv1.AbortRequest]) (*connect.Response[localv1.AbortResponse], error) {
	if err := s.agent.abort(ctx, req.Msg); err != nil {
		return nil, err
	}
	return connect.NewResponse(&localv1.AbortResponse{}), nil
}

func (s *localService) ListAttachments(ctx context.Context, _ *connect.Request[localv1.ListAttachmentsRequest]) (*connect.Response[localv1.ListAttachmentsResponse], error) {
	res := &localv1.ListAttachmentsResponse{}
	err := s.agent.do(ctx, func() {
		for _, at := range s.agent.atts.byUID {
			res.Attachments = append(res.Attachments, s.agent.attachmentProto(at))
		}
	})
	slices.SortFunc(res.Attachments, func(x, y *localv1.Attachment) int {
		return strings.Compare(x.Tenant+"/"+x.Port, y.Tenant+"/"+y.Port)
	})
	return connect.NewResponse(res), err
}

func (s *localService) GetStatus(ctx context.Context, _ *connect.Request[localv1.GetStatusRequest]) (*connect.Response[localv1.GetStatusResponse], error) {
	res := &localv1.GetStatusResponse{}
	var err error
	if derr := s.agent.do(ctx, func() { err = s.agent.status(res) }); derr != nil {
		err = derr
	}
	return connect.NewResponse(res), err
}

func (a *Agent) status(res *localv1.GetStatusResponse) error {
	res.Host, res.HostUid, res.Version = a.cfg.Name, a.rec.self, a.cfg.Version
	res.Connected, res.Server = a.connected != "", a.connected
	res.StoreId, res.Revision = a.staging.StoreID(), a.staging.Revision()
	res.Uplink = a.uplink.name
	res.VtepAddress = a.uplink.facts(a.cfg).VtepAddresses[0]
	for _, t := range a.kernel.Tables() {
		res.Tables = append(res.Tables, &localv1.Table{Name: t.Name, Entries: uint32(t.Entries), Limit: uint32(t.Limit), Refused: t.Refused})
	}
	drops, err := a.kernel.Drops()
	if err != nil {
		return err
	}
	if a.connected == "" { // no report looks
		a.lookAtLearned()
	}
	byID := a.portsByID()
	for _, d := range drops {
		res.Drops = append(res.Drops, &localv1.Drop{PortUid: byID[d.ID], Reason: d.Reason.String(), Packets: d.Packets, Source: sourceWord(d)})
	}
	for _, c := range a.conditionList() {
		res.Conditions = append(res.Conditions, &localv1.Condition{Name: c.Name, Message: c.Message})
	}
	if a.trouble != nil {
		res.Conditions = append(res.Conditions, &localv1.Condition{Name: "no server", Message: a.trouble.Error()})
	}
	for _, e := range a.rec.Errors() {
		res.Conditions = append(res.Conditions, &localv1.Condition{Name: "not applied", Message: e.Uid + ": " + e.Message})
	}
	res.Programs = a.kernel.Programs(mostPrograms)
	books, err := a.kernel.Books()
	if err != nil {
		return err
	}
	for _, b := range books {
		res.Books = append(res.Books, &localv1.ProgramBooks{Program: b.Program, In: b.In, Delivered: b.Delivered, Encapsulated: b.Encapsulated,
			Passed: b.Passed, Dropped: b.Dropped, Copies: b.Copies, Answers: b.Answers, Answered: b.Answered})
	}
	return nil
}

func (a *Agent) attachmentProto(at attachment) *localv1.Attachment {
	m := &localv1.Attachment{
		PortUid: at.UID, Tenant: at.Tenant, Port: at.Port, Kind: string(at.Kind), Interface: at.Interface, Netns: at.Netns, Ifname: at.Ifname,
	}
	if p := a.rec.view.ports[at.UID]; p != nil {
		for _, mac := range p.macs {
			m.Macs = append(m.Macs, mac.String())
		}
		for _, ip := range p.ips {
			m.Ips = append(m.Ips, ip.String())
		}
		m.Epoch = p.place.epoch
		if n := a.rec.view.nets[p.network]; n != nil {
			m.Mtu, m.Vni = uint32(n.mtu), uint32(n.vni)
		}
	}
	if at.Made != nil {
		m.Queues = uint32(at.Made.Queues)
	}
	state, message := a.portState(at.UID)
	m.State, m.Message = stateWord[state], message
	m.Move, m.DarkNanoseconds = a.moveWord(at.UID), int64(a.dark[at.UID])
	return m
}
