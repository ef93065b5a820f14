# make help lists the targets. Everything that a build downloads lands in .cache/
# (git-ignored) or in Go's module cache.

SHELL   := /bin/bash
GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

# Where install puts things; DESTDIR goes before all of it.
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
PLACE       = DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)'

# What clients, model authors, helpers and other services write. By number of inputs: with a time limit the go command
# may report its own deadline as a failure.
PARSERS := ./internal/worker/codec ./internal/worker/upstream ./internal/worker/helper ./internal/supervisor/pbtxt
FUZZED  ?= ./internal/...

STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := $(GO) run mvdan.cc/gofumpt@v0.12.0

.DEFAULT_GOAL := help
.PHONY: help run build engine install uninstall deb test e2e test-upgrade test-clients bench-service soak fuzz bench bench-inference bench-reload bench-picture bench-operate bench-upgrade bench-overload bench-memory bench-io bench-helpers bench-balance bench-tasks lint fmt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A service that root starts must say whom its workers run as: here root, so that a first try needs
# no user. Who sets PREFORKD_USER, also to nothing, decides.
run: build ## serve the models in models/ on http://127.0.0.1:8000
	@if [ "$$(id -u)" = 0 ]; then export PREFORKD_USER="$${PREFORKD_USER-root}"; fi; \
	exec bin/preforkd serve -c configs/preforkd.yaml

engine: ## fetch the engine's library, once (ONNXRUNTIME=/path/libonnxruntime.so uses yours)
	@scripts/fetch-onnxruntime.sh
	@if [ -z "$$ONNXRUNTIME" ]; then mkdir -p bin && ln -sf ../.cache/onnxruntime/1.24.3/libonnxruntime.so.1 bin/libonnxruntime.so.1; fi

build: engine ## build bin/preforkd, -anchor, -worker, -broker and -bench
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/preforkd ./cmd/supervisor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/preforkd-anchor ./cmd/anchor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/preforkd-bench ./cmd/bench
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/preforkd-broker ./cmd/broker
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/preforkd-worker ./cmd/worker

install: build ## install below PREFIX (/usr/local): programs, library, systemd units, configuration
	@$(PLACE) scripts/install.sh install bin

uninstall: ## remove what install has installed; a changed configuration stays
	@$(PLACE) scripts/install.sh uninstall bin

deb: build ## build dist/preforkd_VERSION_ARCH.deb
	@rm -rf dist/root
	@DESTDIR=dist/root PREFIX=/usr scripts/install.sh install bin
	@GO='$(GO)' scripts/deb.sh '$(VERSION)'

test: build lint ## everything that CI runs: lint, unit tests with the race detector, real processes, some fuzzing
	$(GO) test -race -timeout 30m ./...
	@$(MAKE) --no-print-directory fuzz FUZZED='$(PARSERS)' FUZZTIME=20000x

e2e: build ## only the tests with real processes
	$(GO) test -race -count=1 -timeout 30m -v ./e2e/...

test-upgrade: build ## upgrade from the programs of the commit before, and back, under load
	@scripts/before.sh "$(CURDIR)/.cache/before" || { test $$? -eq 3 && exit 0; exit 1; }; \
	ln -sf "$$(readlink -f bin/libonnxruntime.so.1)" .cache/before/libonnxruntime.so.1; \
	PREFORKD_BEFORE="$(CURDIR)/.cache/before" $(GO) test -race -count=1 -v -run TestUpgradeFromBefore ./e2e/

test-clients: build ## Python's tritonclient, from PyPI, against the service
	@scripts/test-clients.sh

soak: build ## long fault storms: the same tests with full counts (needs ulimit -Hn 2200)
	PREFORKD_SOAK=1 $(GO) test -race -count=1 -timeout 180m -v ./e2e/...

fuzz: ## each fuzz target of FUZZED (./internal/...) for FUZZTIME (10s)
	@set -e; for pkg in $$($(GO) list $(FUZZED)); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-10s} $$pkg; \
	  done; done

bench: build ## measure against peers on this machine; the table lands in bench/out/
	$(GO) run ./bench $(BENCHFLAGS)

bench-inference: build ## measure what inference over the protocols costs, about 5 minutes
	$(GO) run ./bench --only inference $(BENCHFLAGS)

bench-reload: build ## measure reloads against peers, and what they cost, about 12 minutes
	$(GO) run ./bench --only reload,overhead --picture docs/img/reload.svg $(BENCHFLAGS)

bench-operate: build ## measure what operators do between reloads, about 8 minutes
	$(GO) run ./bench --only operate $(BENCHFLAGS)

bench-overload: build ## measure batches, overload and what a bystander sees of attacks, about 22 minutes
	$(GO) run ./bench --only overload $(BENCHFLAGS)

bench-memory: build ## measure the memory of large weights against peers; needs 12 GB of memory, 6 GB of disk
	$(GO) run ./bench --only memory $(BENCHFLAGS)

bench-io: build ## measure routes that wait for other services; needs Debian's redis-server
	$(GO) run ./bench --only io $(BENCHFLAGS)

bench-helpers: build ## measure helpers around a model beside FastAPI, and the hop to one, about 3 minutes
	$(GO) run ./bench --only helpers $(BENCHFLAGS)

bench-balance: build ## measure the common queue of workers against peers, about 25 minutes
	$(GO) run ./bench --only balance,balance-mixed,balance-waits $(BENCHFLAGS)

bench-tasks: build ## measure background tasks: accepted, begun, run, and who notices, about 5 minutes
	$(GO) run ./bench --only tasks $(BENCHFLAGS)

bench-upgrade: build ## measure upgrades and deaths of the supervisor, about 3 minutes
	$(GO) run ./bench --only upgrade $(BENCHFLAGS)

bench-service: build ## what clients see of operations under systemd and in a container, about 3 minutes
	@mkdir -p bench/out && rm -f bench/out/service.txt
	PREFORKD_ROWS=$(CURDIR)/bench/out/service.txt $(GO) test -count=1 -timeout 30m -run '^Test(Systemd|Container|PackageUnderSystemd)' ./e2e/
	@cat bench/out/service.txt

bench-picture: build ## draw docs/img/reload.svg again, about 3 minutes
	$(GO) run ./bench --only reload-slow --rounds 1 --picture docs/img/reload.svg $(BENCHFLAGS)

lint: ## go vet, staticcheck, gofumpt
	$(GO) vet ./...
	$(STATICCHECK) ./...
	@test -z "$$($(GOFUMPT) -l cmd internal e2e bench)" || { echo "gofumpt would change:"; $(GOFUMPT) -l cmd internal e2e bench; exit 1; }

fmt: ## format the source
	$(GOFUMPT) -w cmd internal e2e bench

clean: ## remove what was built; downloads stay
	rm -rf bin dist bench/out
