# Two commands on a fresh machine (Debian or Ubuntu, kernel 6.6 or later, root, Go, make): make run, make test.
GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT    ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS    = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

.PHONY: build run test soak bench bench-scale generate deps lint clean install

build: ## Builds ./bin/weft; needs Go only.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/weft ./cmd/weft

run: build ## Shows what weft does, on this machine, in network namespaces.
	./bin/weft lab demo

deps: ## Installs what tests and generators need (Debian packages).
	scripts/deps

test: deps build ## Every test, with real peers.
	scripts/test

soak: build ## Kills under load, ten million packets, other kernels; logs in docs/soak and bench/results.
	scripts/deps soak
	scripts/soak

bench: build ## Side by side with the kernel's own overlay; results in bench/results.
	./bin/weft bench --out bench/results

bench-scale: build ## One server with 1,000 hosts, 100,000 ports and 1,000 networks; results in bench/results.
	./bin/weft bench scale --out bench/results

generate: ## Regenerates protobuf, BPF objects and reference docs.
	scripts/generate

lint:
	scripts/lint

install: build
	install -D -m 0755 bin/weft $(DESTDIR)/usr/local/bin/weft
	install -D -m 0644 -t $(DESTDIR)/etc/systemd/system packaging/systemd/weft-server.service packaging/systemd/weft-agent.service packaging/systemd/weft-up.service packaging/systemd/weft-vtep.service

clean:
	rm -rf bin
