package server

import (
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

func poolSpecIn(s *weftv1.VNIPoolSpec) model.VNIPoolSpec {
	return model.VNIPoolSpec{First: wire.VNI(s.GetFirst()), Last: wire.VNI(s.GetLast()), Description: s.GetDescription()}
}

func poolOut(p *model.VNIPool, status *weftv1.VNIPoolStatus) *weftv1.VNIPool {
	return &weftv1.VNIPool{
		Name: p.Name, Meta: metaOut(p.Meta),
		Spec:   &weftv1.VNIPoolSpec{First: uint32(p.Spec.First), Last: uint32(p.Spec.Last), Description: p.Spec.Description},
		Status: status,
	}
}
