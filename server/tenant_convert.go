package server

import (
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func tenantSpecIn(s *weftv1.TenantSpec) model.TenantSpec {
	return model.TenantSpec{Description: s.GetDescription()}
}

func tenantOut(t *model.Tenant, status *weftv1.TenantStatus) *weftv1.Tenant {
	return &weftv1.Tenant{
		Name: t.Name, Meta: metaOut(t.Meta),
		Spec:   &weftv1.TenantSpec{Description: t.Spec.Description},
		Status: status,
	}
}
